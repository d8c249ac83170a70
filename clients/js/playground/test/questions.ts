/** Events as a gateway sends them, for runs made by hand. */

import { decodeEvent, type ServerEvent } from "wetink/protocol";
import type { Entry, Reading, Recording } from "../src/run/recording.js";

export function event(fields: Record<string, unknown>): ServerEvent {
  const decoded = decodeEvent(JSON.stringify(fields));
  if (decoded === null) throw new Error("no such event");
  return decoded;
}

export const OPEN = event({
  type: "open", v: 1, epoch: 7, stream: "s", model: "m", policy: { kind: "retract" },
  offsets: "utf-16", part: 0, at: 0, kind: "text", seed: 3,
});

export function finish(at: number): ServerEvent {
  return event({ type: "finish", at, reason: "stop", usage: {}, digest: "d", stats: {} });
}

/** Two drafts: "brown" is wrong, "fox jumps" right. */
export const DRAFTED: readonly (readonly [number, ServerEvent])[] = [
  [0, OPEN],
  [100, event({ type: "tentative", at: 0, text: "The brown", tokens: [{ id: 1, n: 3, confidence: 0.9 }, { id: 2, n: 6, confidence: 0.4 }] })],
  [400, event({ type: "commit", at: 0, text: "The red", retract: { at: 4, n: 5, cause: "draft_rejected" }, tokens: [{ id: 1, n: 3 }, { id: 3, n: 4 }] })],
  [410, event({ type: "tentative", at: 7, text: " fox jumps", tokens: [{ id: 4, n: 4, confidence: 0.8 }, { id: 5, n: 6, confidence: 0.7 }] })],
  [700, event({ type: "commit", at: 7, text: " fox jumps.", tokens: [{ id: 4, n: 4 }, { id: 5, n: 6 }, { id: 6, n: 1 }] })],
  [710, finish(18)],
];

const HELD: readonly (readonly [number, ServerEvent])[] = [
  [0, OPEN],
  [400, event({ type: "commit", at: 0, text: "The red" })],
  [700, event({ type: "commit", at: 7, text: " fox jumps." })],
  [710, finish(18)],
];

const SENTENCES: readonly (readonly [number, ServerEvent])[] = [
  [0, OPEN],
  [700, event({ type: "commit", at: 0, text: "The red fox jumps." })],
  [710, finish(18)],
];

export const RECORDING: Recording = {
  question: { prompt: "What does the fox do?", max_tokens: 20, temperature: 0, seed: 3, budget: 1 },
  model: "m",
  verify_delay_ms: 300,
  entries: Object.entries({ hold: HELD, retract: DRAFTED, chunk: SENTENCES, engine: DRAFTED })
    .flatMap(([reading, events]) =>
      events.map(([t, each]): Entry => ({ t, reading: reading as Reading, event: each })),
    )
    .toSorted((one, other) => one.t - other.t),
};
