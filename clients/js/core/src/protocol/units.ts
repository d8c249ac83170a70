/**
 * Lengths and offsets in the three units an attachment may ask for (SPEC section 2.2).
 *
 * A JavaScript string is indexed in UTF-16 units; the wire counts code points unless asked
 * otherwise. These functions are the only place where the two meet.
 */

export type OffsetUnit = "codepoint" | "utf-16" | "utf-8";

export const OFFSET_UNITS: readonly OffsetUnit[] = ["codepoint", "utf-16", "utf-8"];

/** Under the `u` flag only a surrogate without its partner matches. */
const LONE_SURROGATE = /\p{Surrogate}/u;

/** False if `text` holds half a surrogate pair, which no event may carry. */
export function isWellFormed(text: string): boolean {
  return !LONE_SURROGATE.test(text);
}

/** Length of `text` in `unit`. `text` must be well-formed. */
export function lengthIn(text: string, unit: OffsetUnit): number {
  if (unit === "utf-16") return text.length;
  let length = 0;
  for (const char of text) length += width(char, unit);
  return length;
}

/**
 * The string index (UTF-16) that lies `offset` units into `text`.
 *
 * Null if `offset` is negative, beyond the end or inside a code point.
 */
export function indexAt(text: string, offset: number, unit: OffsetUnit): number | null {
  let units = 0;
  let index = 0;
  for (const char of text) {
    if (units >= offset) break;
    units += width(char, unit);
    index += char.length;
  }
  return units === offset ? index : null;
}

/** Width in `unit` of `char`, a string of one code point. */
function width(char: string, unit: OffsetUnit): number {
  if (unit === "codepoint") return 1;
  if (unit === "utf-16") return char.length;
  if (char < "\u0080") return 1;
  if (char < "\u0800") return 2;
  return char.length === 1 ? 3 : 4;
}
