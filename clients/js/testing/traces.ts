/** What gateways play in tests. */

import type { Trace } from "./gateway.js";

/** Text in which the three offset units disagree, with drafts that are kept, cut and rejected. */
export const MIXED: Trace = [
  { event: "verified", text: "Ink 🖋️ " },
  { after_ms: 2, event: "drafted", tail: "حبر مبتل" },
  { after_ms: 2, event: "verified", text: "حبر", cause: "draft_rejected" },
  { after_ms: 2, event: "drafted", tail: " 墨が乾" },
  { after_ms: 2, event: "verified", text: " 墨", tail: "が乾" },
  { after_ms: 2, event: "verified", text: "は湿る", cause: "draft_rejected" },
  { after_ms: 2, event: "drafted", tail: " 👩‍👩‍👧‍👦 done?" },
  { after_ms: 2, event: "verified", text: " 👩‍👩‍👧‍👦 done.", cause: "draft_rejected" },
  { event: "finished", reason: "stop" },
];
export const MIXED_TEXT = "Ink 🖋️ حبر 墨は湿る 👩‍👩‍👧‍👦 done.";

/** `words` drafts, every third of them rejected, and their verdicts. */
export function longTrace(words: number, afterMs = 0): { trace: Trace; text: string } {
  const trace: object[] = [];
  let text = "";
  for (let word = 0; word < words; word += 1) {
    const said = `word${word} `;
    const isRejected = word % 3 === 0;
    trace.push({ after_ms: afterMs, event: "drafted", tail: isRejected ? `wrong${word} ` : said });
    trace.push({ after_ms: afterMs, event: "verified", text: said, ...(isRejected && { cause: "draft_rejected" }) });
    text += said;
  }
  trace.push({ event: "finished", reason: "stop" });
  return { trace, text };
}
