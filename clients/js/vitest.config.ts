import { defineConfig } from "vitest/config";

// The packages find each other's sources, not what was last built of them.
const conditions = ["wetink-source", "module", "node", "development|production"];

export default defineConfig({
  resolve: { conditions },
  ssr: { resolve: { conditions } },
  test: {
    include: ["test/**/*.test.ts", "*/test/**/*.test.ts"],
    // Half of the time is spent waiting for a gateway or a browser.
    maxWorkers: 2,
    // No test changes a module, so the files of a worker may share them.
    isolate: false,
    // A run that found no test is a broken run, not a green one.
    passWithNoTests: false,
    allowOnly: false,
    // Every split of a long stream is thousands of runs; a busy machine must not fail them.
    testTimeout: 60_000,
    // So may a gateway or a browser take its time to start.
    hookTimeout: 60_000,
  },
});
