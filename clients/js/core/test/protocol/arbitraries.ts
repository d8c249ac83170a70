/** Random input shared by the property tests. */

import * as fc from "fast-check";

import { OFFSET_UNITS } from "../../src/protocol/index.js";

/** Text with code points of every width, so that each unit disagrees with the others. */
export const anyText = fc.string({ unit: "binary", maxLength: 20 });

export const anyUnit = fc.constantFrom(...OFFSET_UNITS);

/** `whole` cut anywhere, empty pieces included. */
export function chunks<T extends { length: number; slice(start: number, end: number): T }>(
  whole: T,
): fc.Arbitrary<T[]> {
  return fc.array(fc.nat({ max: whole.length }), { maxLength: 12 }).map((cuts) => {
    const ends = [...cuts.toSorted((a, b) => a - b), whole.length];
    return ends.map((end, index) => whole.slice(ends[index - 1] ?? 0, end));
  });
}
