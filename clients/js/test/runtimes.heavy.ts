/** The library in Deno and Bun, as npm brings them: `make test-heavy`. */

import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { afterAll, beforeAll, expect, test } from "vitest";

import { bundle } from "../build.mjs";
import type { Plan } from "../runtimes/checks.js";
import { prepare } from "../testing/plan.js";

const BIN = fileURLToPath(new URL("../runtimes/node_modules/.bin/", import.meta.url));
const PROGRAM = `
  import { argv } from "node:process";
  import { checks } from "./runtimes/checks.ts";
  console.log(JSON.stringify(await checks(JSON.parse(argv[2]))));
`;

let folder: string;
let program: string;
let plan: Plan;
let stop: () => Promise<void>;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "wetink-runtimes-"));
  program = join(folder, "checks.mjs");
  writeFileSync(program, bundle(PROGRAM, { external: ["node:process"] }));
  ({ plan, stop } = await prepare());
});
afterAll(async () => {
  await stop();
  rmSync(folder, { recursive: true });
});

test.each([
  ["Deno", "deno", ["run", "--no-prompt", "--allow-net"], 16],
  ["Bun", "bun", ["run"], 16],
])("%s reads by fetch and WebSocket, through networks that fail, with a key", async (_, name, args, least) => {
  const { stdout } = await promisify(execFile)(join(BIN, name), [...args, program, JSON.stringify(plan)], {
    timeout: 120_000,
    maxBuffer: 16 * 1024 * 1024,
  });
  const results = JSON.parse(stdout) as Record<string, string | null>;
  expect(Object.entries(results).filter(([, said]) => said !== null)).toEqual([]);
  expect(Object.keys(results).length).toBeGreaterThanOrEqual(least);
});
