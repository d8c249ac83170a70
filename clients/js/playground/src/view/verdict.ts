/** What a finished run shows, in two sentences. */

import { lead } from "../run/reader.js";
import { PANES } from "../run/recording.js";
import type { Stage } from "../run/stage.js";
import { element } from "./page.js";

/** Under this no reader feels a difference. */
export const FELT_MS = 20;

/** Null before every reading has its end. */
export function verdictOf(stage: Stage): readonly (string | HTMLElement)[] | null {
  if (!stage.isFinished) return null;
  const { hold, retract, chunk } = stage.readers;
  const digest = hold.receiver.finish?.digest ?? "";
  const isSame = PANES.every((name) => stage.readers[name].receiver.finish?.digest === digest);
  if (!isSame) return ["The three texts differ. That must never happen: please report it."];
  return [
    "All three end with the same text, byte for byte ",
    element("code", "", `(SHA-256 ${digest.slice(0, 8)}…)`),
    `. ${retractSays(lead(retract, hold), retract.erasure)} ${chunkSays(lead(hold, chunk), hold.receiver.finish?.reason)}`,
  ];
}

function retractSays(earlier: number, erasure: number): string {
  if (earlier < FELT_MS) return "Retract was no faster this time.";
  const price =
    erasure === 0
      ? "and took nothing back"
      : `and took back ${Math.round(100 * erasure)} letters for every 100 it kept`;
  return `Retract showed words ${inSeconds(earlier)} sooner than hold, ${price}.`;
}

/** The last sentence of an answer that was cut off is half a one everywhere. */
function chunkSays(later: number, reason: string | undefined): string {
  if (later < FELT_MS) return "";
  const until = reason === "stop" ? "" : ", until the answer was cut off";
  return `Chunk kept you waiting ${inSeconds(later)} longer, and never showed half a sentence${until}.`;
}

function inSeconds(milliseconds: number): string {
  return `${(milliseconds / 1000).toFixed(milliseconds < 995 ? 2 : 1)} s`;
}
