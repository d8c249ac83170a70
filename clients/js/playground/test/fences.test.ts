/** Code in an answer, however the answer comes in pieces. */

import * as fc from "fast-check";
import { expect, test } from "vitest";

import { Fences, type Run } from "../src/view/fences.js";

const ANSWER = "Here:\n```python\nprint(1)\n```\nThat ``is`` it.\n";

/** Neighbours of one kind are one run. */
function joined(runs: readonly Run[]): Run[] {
  const all: Run[] = [];
  for (const run of runs) {
    const last = all.at(-1);
    if (last?.isCode === run.isCode) all[all.length - 1] = { text: last.text + run.text, isCode: run.isCode };
    else all.push(run);
  }
  return all;
}

test("code is what stands between two fences, which belong to it", () => {
  expect(joined(new Fences().split(ANSWER))).toEqual([
    { text: "Here:\n", isCode: false },
    { text: "```python\nprint(1)\n```", isCode: true },
    { text: "\nThat ``is`` it.\n", isCode: false },
  ]);
});

test("an answer in pieces has the same code, but for backticks of a fence that came before its third", () => {
  fc.assert(
    fc.property(fc.array(fc.nat(ANSWER.length)), (cuts) => {
      const ends = [...cuts.toSorted((one, other) => one - other), ANSWER.length];
      const fences = new Fences();
      const runs = ends.flatMap((end, index) => fences.split(ANSWER.slice(ends[index - 1] ?? 0, end)));
      expect(runs.map(({ text }) => text).join("")).toBe(ANSWER);
      const code = runs.flatMap(({ text, isCode }) => (isCode ? [text] : [])).join("");
      expect(code).toMatch(/^`{1,3}python\nprint\(1\)\n```$/);
    }),
  );
});
