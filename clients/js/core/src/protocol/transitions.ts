/**
 * States of an attachment and every transition between them (SPEC section 5.5).
 *
 * An event that has no row here is a protocol violation.
 */

import type { ServerEvent } from "./events.js";

export type State = "connecting" | "open" | "interrupted" | "finished" | "failed";

/**
 * An event's type, or one of two things that are no events: `interruption`, the transport ended
 * without `finish` or `error`, and `nothing_more`, a resume was answered with HTTP 204, after `finish`.
 */
export type Step = ServerEvent["type"] | "interruption" | "nothing_more";

const ATTACHING = {
  open: "open",
  error: "failed",
  interruption: "interrupted",
  nothing_more: "finished",
} as const;

const TRANSITIONS: Readonly<Record<State, Readonly<Partial<Record<Step, State>>>>> = {
  connecting: { ...ATTACHING, heartbeat: "connecting" },
  open: {
    tentative: "open",
    commit: "open",
    retract: "open",
    part: "open",
    heartbeat: "open",
    finish: "finished",
    error: "failed",
    interruption: "interrupted",
  },
  interrupted: { ...ATTACHING, heartbeat: "interrupted" },
  finished: {
    interruption: "finished",
    heartbeat: "finished",
  },
  failed: {
    interruption: "interrupted",
  },
};

/** State after `step`, or null if the protocol forbids it. */
export function follow(state: State, step: Step): State | null {
  return TRANSITIONS[state][step] ?? null;
}
