import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    // A run that found no test is a broken run, not a green one.
    passWithNoTests: false,
    allowOnly: false,
    // Every split of a long stream is thousands of runs; a busy machine must not fail them.
    testTimeout: 60_000,
  },
});
