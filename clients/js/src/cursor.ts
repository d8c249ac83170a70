/** The resume cursor: all that a reader has to keep (SPEC sections 6.1, 6.3). */

import { RequestError } from "./errors.js";

/** The reader holds `offset` units of committed text of `part`, and all parts before it. */
export interface Cursor {
  /** Which incarnation of the gateway the stream belongs to. */
  readonly epoch: number;
  readonly part: number;
  readonly offset: number;
}

// No leading zeros, so a cursor has one spelling; at most 16 digits, as many as 2^53 - 1 has.
const INTEGER = "(0|[1-9][0-9]{0,15})";
const CURSOR = new RegExp(`^${INTEGER}\\.${INTEGER}\\.${INTEGER}$`);

/** Throws `RequestError` with code `bad_cursor`. */
export function parseCursor(text: string): Cursor {
  const numbers = CURSOR.exec(text)?.slice(1).map(Number);
  const [epoch, part, offset] = numbers ?? [];
  if (epoch === undefined || part === undefined || offset === undefined) {
    throw new RequestError(
      "bad_cursor",
      "a cursor is epoch.part.offset, three decimal integers without leading zeros",
    );
  }
  if (!numbers?.every(Number.isSafeInteger)) {
    throw new RequestError("bad_cursor", "a cursor's integers are at most 2^53 - 1");
  }
  return { epoch, part, offset };
}

export function formatCursor(cursor: Cursor): string {
  return `${cursor.epoch}.${cursor.part}.${cursor.offset}`;
}
