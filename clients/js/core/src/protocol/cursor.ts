/** The resume cursor: all that a reader has to keep (SPEC sections 6.1, 6.3). */

import { RequestError } from "./errors.js";

/** How a reader was told that nothing more comes. */
export type Mark = "finish" | "error";

/** The reader holds `offset` units of committed text of `part`, and all parts before it. */
export interface Cursor {
  /** Which incarnation of the gateway the stream belongs to. */
  readonly epoch: number;
  readonly part: number;
  readonly offset: number;
  /** Null until the end was told. */
  readonly mark: Mark | null;
}

// No leading zeros, so a cursor has one spelling; at most 16 digits, as many as 2^53 - 1 has.
const INTEGER = "(0|[1-9][0-9]{0,15})";
const CURSOR = new RegExp(`^${INTEGER}\\.${INTEGER}\\.${INTEGER}(?:\\.(finish|error))?$`);

/** Throws `RequestError` with code `bad_cursor`. */
export function parseCursor(text: string): Cursor {
  const match = CURSOR.exec(text);
  const [epoch = NaN, part = NaN, offset = NaN] = match?.slice(1, 4).map(Number) ?? [];
  if (![epoch, part, offset].every(Number.isSafeInteger)) {
    throw new RequestError("bad_cursor", "a cursor is epoch.part.offset, then .finish or .error at the end");
  }
  return { epoch, part, offset, mark: (match?.[4] ?? null) as Mark | null };
}

export function formatCursor(cursor: Cursor): string {
  const position = `${cursor.epoch}.${cursor.part}.${cursor.offset}`;
  return cursor.mark === null ? position : `${position}.${cursor.mark}`;
}
