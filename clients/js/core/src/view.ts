/** What a page shows of a stream: one immutable object per change. */

import type { WetinkError } from "./protocol/errors.js";
import type { PartText } from "./protocol/received.js";
import type { State } from "./protocol/transitions.js";

export interface View {
  readonly state: State;
  /** The stream's name; null before the server has given it one. */
  readonly id: string | null;
  /** Committed text of the current part: it only ever grows. */
  readonly committed: string;
  /** Tentative text behind it, which may be taken back. */
  readonly tail: string;
  /** The beginning of the tail that is verified and only waits for the policy. */
  readonly verifiedTail: string;
  /** All parts so far. Act on one (a tool call) only when it is `complete`. */
  readonly parts: readonly PartText[];
  /** Why reading ended; null unless `state` is `failed`. */
  readonly error: WetinkError | null;
}

export function snapshotOf(part: PartText): PartText {
  const { index, kind, name, complete, committed, tail, watermark, verifiedTail } = part;
  return { index, kind, name, complete, committed, tail, watermark, verifiedTail };
}
