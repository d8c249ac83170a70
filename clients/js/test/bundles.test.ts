/** What a page has to load, and that the bundle the gateway serves is that of these sources. */

import { readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

import { expect, test } from "vitest";

import { bundle, SERVED, servedBundle } from "../build.mjs";

const KB = 1024;

/** Bytes of a bundle, minified and compressed as a server would. */
function size(entry: string): number {
  return gzipSync(bundle(entry), { level: 9 }).length;
}

test("the bundle that the gateway serves is what these sources give", () => {
  expect(readFileSync(SERVED, "utf8") === servedBundle()).toBe(true);
});

test.each([
  ["stream", 'export { stream, attach } from "wetink"', 8],
  ["connect", 'export { connect } from "wetink"', 8],
  ["eventSource", 'export { eventSource } from "wetink"', 8],
  ["bindView", 'export { bindView } from "wetink/dom"', 1],
  ["everything", 'export * from "wetink"; export * from "wetink/dom"', 16],
])("%s is small", (_, entry, most) => {
  expect(size(entry)).toBeLessThan(most * KB);
});
