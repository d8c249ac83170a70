/** What both bindings share. */

/** Classes of what the bindings make; a page's own style sheet says how it looks. */
export const CLASSES = {
  part: "wetink-part",
  /** Final: never touched again. */
  committed: "wetink-committed",
  tail: "wetink-tail",
  /** The beginning of the tail that is verified and only waits for the policy. */
  verified: "wetink-verified",
  tentative: "wetink-tentative",
  /** Taken back, for a moment. */
  retracted: "wetink-retracted",
  /** Blocks of Markdown that are not complete. */
  open: "wetink-open",
} as const;

/** Length in UTF-16 units; a surrogate pair is never cut. */
export function commonPrefix(one: string, other: string): number {
  const most = Math.min(one.length, other.length);
  let length = 0;
  while (length < most && one[length] === other[length]) length += 1;
  const isInPair = length < one.length && /[\uD800-\uDBFF]/.test(one[length - 1] ?? "");
  return isInPair ? length - 1 : length;
}
