import * as fc from "fast-check";
import { describe, expect, test } from "vitest";

import { indexAt, isWellFormed, lengthIn } from "../../src/protocol/index.js";
import { anyText, anyUnit } from "./arbitraries.js";

describe("units", () => {
  test("agree with the platform's own counts", () => {
    fc.assert(
      fc.property(anyText, (text) => {
        expect(lengthIn(text, "utf-16")).toBe(text.length);
        expect(lengthIn(text, "codepoint")).toBe(Array.from(text).length);
        expect(lengthIn(text, "utf-8")).toBe(new TextEncoder().encode(text).length);
      }),
    );
  });

  test("lead from every boundary to its index and nowhere else", () => {
    fc.assert(
      fc.property(anyText, anyUnit, (text, unit) => {
        const boundaries = new Map([[0, 0]]);
        let index = 0;
        for (const char of text) {
          index += char.length;
          boundaries.set(lengthIn(text.slice(0, index), unit), index);
        }
        for (let offset = -1; offset <= lengthIn(text, unit) + 1; offset += 1) {
          expect(indexAt(text, offset, unit)).toBe(boundaries.get(offset) ?? null);
        }
      }),
    );
  });

  test.each([
    ["", true],
    ["a😀é", true],
    ["\ud83d", false],
    ["a\ude00", false],
    ["\ude00\ud83d", false],
  ])("tell half a surrogate pair in %j", (text, whole) => {
    expect(isWellFormed(text)).toBe(whole);
  });
});
