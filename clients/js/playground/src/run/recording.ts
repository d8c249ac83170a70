/**
 * A run as it was read: what is shown, live or again, is a function of this and of the time.
 *
 * One generation is read four times, once for each pane, and once, undiminished, for the figures.
 */

import { decodeEvent, type ServerEvent } from "wetink/protocol";

/** The three that are shown, and what they are read under. */
export const PANES = ["hold", "retract", "chunk"] as const;
export type PaneName = (typeof PANES)[number];
/** `engine` reads every draft, whatever the panes may show. */
export const READINGS = [...PANES, "engine"] as const;
export type Reading = (typeof READINGS)[number];

/** What somebody asked for: enough to ask it again. */
export interface Question {
  readonly prompt: string;
  readonly model?: string;
  readonly max_tokens: number;
  readonly temperature: number;
  readonly seed?: number;
  readonly drafter?: string;
  readonly draft_length?: number;
  /** Of what is kept, how much may have been taken back; 1: every draft is shown. */
  readonly budget: number;
}

export interface Entry {
  /** Milliseconds since the run began. */
  readonly t: number;
  readonly reading: Reading;
  readonly event: ServerEvent;
}

export interface Recording {
  readonly question: Question;
  readonly model: string;
  /** How slow the engine was made when it began; null where that is not known. */
  readonly verify_delay_ms: number | null;
  readonly entries: readonly Entry[];
}

export const FORMAT = "wetink-recording-1";
/** Of a file somebody opens: far beyond any run, and no trouble to hold. */
const MOST_BYTES = 16 * 1024 * 1024;

export function durationOf(recording: Recording): number {
  return recording.entries.at(-1)?.t ?? 0;
}

/** As a file: each entry a row of time, reading and event. */
export function encodeRecording(recording: Recording): string {
  const { entries, ...head } = recording;
  const rows = entries.map(({ t, reading, event }) =>
    JSON.stringify([Math.round(t), reading, event], (key, value: unknown) => {
      if (value === null || value === false || key === "stream") return undefined;
      return key === "confidence" ? Math.round(1000 * (value as number)) / 1000 : value;
    }),
  );
  return `{"format":"${FORMAT}",${JSON.stringify(head).slice(1, -1)},"entries":[\n${rows.join(",\n")}\n]}\n`;
}

/** Throws an Error that says what is wrong with the file. */
export function decodeRecording(text: string): Recording {
  if (text.length > MOST_BYTES) throw new Error("the file is too large to be a recording");
  let raw: unknown;
  try {
    raw = JSON.parse(text);
  } catch {
    throw new Error("the file is not JSON");
  }
  const file = raw as Partial<Record<string, unknown>> | null;
  if (typeof file !== "object" || file?.["format"] !== FORMAT || !Array.isArray(file["entries"])) {
    throw new Error("the file is not a recording of this page");
  }
  const entries: Entry[] = [];
  for (const row of file["entries"] as unknown[]) {
    const [t, reading, event] = Array.isArray(row) ? (row as unknown[]) : [];
    const decoded = decodeEvent(JSON.stringify(event ?? null));
    const known = READINGS.find((name) => name === reading);
    if (typeof t !== "number" || known === undefined) throw new Error("the recording is damaged");
    if (decoded !== null) entries.push({ t, reading: known, event: decoded });
  }
  return {
    question: questionOf(file["question"]),
    model: String(file["model"] ?? ""),
    verify_delay_ms: typeof file["verify_delay_ms"] === "number" ? file["verify_delay_ms"] : null,
    entries: entries.toSorted((one, other) => one.t - other.t),
  };
}

/** What was typed into a link or a file by who knows whom, made a question; numbers in bounds. */
export function questionOf(raw: unknown): Question {
  const given = (typeof raw === "object" && raw !== null ? raw : {}) as Record<string, unknown>;
  const number = (key: string, least: number, most: number): number | undefined => {
    const value = Number(given[key] ?? Number.NaN);
    return Number.isFinite(value) ? Math.min(Math.max(value, least), most) : undefined;
  };
  const text = (key: string): string | undefined =>
    typeof given[key] === "string" && given[key] !== "" ? given[key] : undefined;
  const question: { -readonly [Key in keyof Question]: Question[Key] } = {
    prompt: text("prompt") ?? "",
    max_tokens: Math.round(number("max_tokens", 1, 1024) ?? DEFAULTS.max_tokens),
    temperature: number("temperature", 0, 2) ?? DEFAULTS.temperature,
    budget: number("budget", 0.01, 1) ?? DEFAULTS.budget,
  };
  const seed = number("seed", 0, Number.MAX_SAFE_INTEGER);
  const length = number("draft_length", 0, 16);
  const [model, drafter] = [text("model"), text("drafter")];
  if (seed !== undefined) question.seed = Math.round(seed);
  if (length !== undefined) question.draft_length = Math.round(length);
  if (model !== undefined) question.model = model;
  if (drafter !== undefined) question.drafter = drafter;
  return question;
}

export const DEFAULTS = { max_tokens: 120, temperature: 0, budget: 1 } as const;
