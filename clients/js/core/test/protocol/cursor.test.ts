import * as fc from "fast-check";
import { describe, expect, test } from "vitest";

import { formatCursor, parseCursor, RequestError } from "../../src/protocol/index.js";

const integer = fc.nat({ max: Number.MAX_SAFE_INTEGER });
const mark = fc.constantFrom(null, "finish" as const, "error" as const);

describe("cursor", () => {
  test("comes back from its own spelling", () => {
    fc.assert(
      fc.property(fc.record({ epoch: integer, part: integer, offset: integer, mark }), (cursor) => {
        expect(parseCursor(formatCursor(cursor))).toEqual(cursor);
      }),
    );
  });

  test.each(["9007199254740992.0.0", "0.9999999999999999.0"])(
    "is refused where a number would round it: %s",
    (text) => {
      expect(() => parseCursor(text)).toThrow(RequestError);
    },
  );

  test.each(["1.2.3\n", " 1.2.3", "1.2", "1.2.3.4", "01.2.3", "1.2.-3", "١.2.3", ""])(
    "is refused where it is not three plain integers: %j",
    (text) => {
      expect(() => parseCursor(text)).toThrow(expect.objectContaining({ code: "bad_cursor" }));
    },
  );
});
