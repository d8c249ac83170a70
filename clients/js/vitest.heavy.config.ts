import { defineConfig } from "vitest/config";

import usual from "./vitest.config.js";

/** The embedded model, and other runtimes: `npm run test:heavy`. */
export default defineConfig({
  ...usual,
  test: { ...usual.test, include: ["test/**/*.heavy.ts"], testTimeout: 240_000, hookTimeout: 240_000 },
});
