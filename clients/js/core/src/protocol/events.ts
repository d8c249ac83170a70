/**
 * Server events, one interface each, and their decoding from JSON (SPEC section 4).
 *
 * Unknown fields and unknown event types are ignored; a known field of the wrong type is the
 * server's fault. All offsets (`at`, `n`) are in the unit the attachment asked for.
 */

import { RemoteProtocolError } from "./errors.js";
import { isWellFormed, OFFSET_UNITS, type OffsetUnit } from "./units.js";

export const PROTOCOL_VERSION = 1;

export interface Usage {
  /** Token counts. Only committed tokens are completion tokens. */
  readonly prompt_tokens: number;
  readonly cached_prompt_tokens: number;
  readonly completion_tokens: number;
  readonly drafted_tokens: number;
  readonly accepted_tokens: number;
  readonly rejected_tokens: number;
}

/** What one attachment saw. Lengths in its offset unit, times in milliseconds. */
export interface Stats {
  readonly ttfv_ms: number | null;
  readonly ttc_ms: number | null;
  readonly erased_units: number;
  readonly normalized_erasure: number;
  readonly retractions: number;
  readonly longest_tail: number;
  readonly acceptance_rate: number | null;
  readonly tokens_per_step: number | null;
}

/** One token of an event's text, sent when `include` asks for it. */
export interface Token {
  readonly id: number;
  /** Length of the text it added, in offset units; 0 while its bytes are incomplete. */
  readonly n: number;
  readonly logprob: number | null;
  readonly confidence: number | null;
}

/** The tail from `at` to its end, `n` units, is gone. */
export interface Retraction {
  readonly at: number;
  readonly n: number;
  /** An open set: `draft_rejected`, `stop_sequence`, `engine_restart`, `cancelled`, … */
  readonly cause: string;
}

interface Envelope {
  /** Which stream, where one transport carries many (WebSocket). */
  readonly stream: string | null;
  /** Milliseconds since the request, when `include` has `timing`. */
  readonly t: number | null;
}

export interface Open extends Envelope {
  readonly type: "open";
  readonly v: number;
  readonly epoch: number;
  readonly model: string;
  readonly policy: Readonly<Record<string, unknown>>;
  readonly offsets: OffsetUnit;
  readonly part: number;
  readonly at: number;
  readonly kind: string;
  readonly name: string | null;
  /** Null where none was sent, and where it is beyond 2^53 - 1. */
  readonly seed: number | null;
  readonly ref: string | null;
}

export interface Tentative extends Envelope {
  readonly type: "tentative";
  readonly at: number;
  readonly text: string;
  /** The tail up to this offset is committed in the stream and will not be taken back. */
  readonly verified: number | null;
  readonly confidence: number | null;
  readonly tokens: readonly Token[] | null;
}

export interface Commit extends Envelope {
  readonly type: "commit";
  readonly at: number;
  readonly text: string;
  readonly retract: Retraction | null;
  /** The stream was cut short, and the policy would have withheld the end of `text` for longer. */
  readonly cut_short: boolean;
  readonly tokens: readonly Token[] | null;
}

export interface Retract extends Envelope, Retraction {
  readonly type: "retract";
}

export interface Part extends Envelope {
  readonly type: "part";
  readonly part: number;
  readonly kind: string;
  readonly name: string | null;
}

export interface Finish extends Envelope {
  readonly type: "finish";
  readonly at: number;
  readonly reason: string;
  readonly usage: Usage;
  /** Lower-case hex SHA-256 over the committed text of all parts, in order, as UTF-8. */
  readonly digest: string;
  readonly stats: Stats;
}

export interface StreamError extends Envelope {
  readonly type: "error";
  readonly code: string;
  readonly message: string;
  /** Trying again may help: reattaching, or where the stream has `ended`, repeating its request. */
  readonly retryable: boolean;
  /** The stream itself has failed. */
  readonly ended: boolean;
  readonly at: number;
  readonly param: string | null;
  readonly ref: string | null;
}

export interface Heartbeat extends Envelope {
  readonly type: "heartbeat";
}

export type ServerEvent =
  | Open
  | Tentative
  | Commit
  | Retract
  | Part
  | Finish
  | StreamError
  | Heartbeat;

/** An escape that may stand for half a surrogate pair, which no event may carry. */
const SURROGATE_ESCAPE = /\\u[dD][89a-fA-F]/;

/**
 * The event in `json`, or null if its type is unknown. Throws `RemoteProtocolError` if it is broken.
 */
export function decodeEvent(json: string): ServerEvent | null {
  const raw = object(parse(json), "the event");
  const type = text(raw, "type");
  const decode = DECODERS.get(type);
  return decode === undefined ? null : decode(raw);
}

function parse(json: string): unknown {
  let value: unknown;
  let whole = isWellFormed(json);
  try {
    value = SURROGATE_ESCAPE.test(json)
      ? JSON.parse(json, (key, item: unknown) => {
          whole &&= isWellFormed(key) && (typeof item !== "string" || isWellFormed(item));
          return item;
        })
      : JSON.parse(json);
  } catch {
    throw new RemoteProtocolError("an event is not JSON");
  }
  if (!whole) throw new RemoteProtocolError("an event holds half a surrogate pair");
  return value;
}

type Raw = Readonly<Record<string, unknown>>;

function envelope(raw: Raw): Envelope {
  return { stream: optional(raw, "stream", text), t: optional(raw, "t", float) };
}

const DECODERS: ReadonlyMap<string, (raw: Raw) => ServerEvent> = new Map<
  string,
  (raw: Raw) => ServerEvent
>([
  [
    "open",
    (raw) => ({
      type: "open",
      ...envelope(raw),
      v: int(raw, "v"),
      epoch: int(raw, "epoch"),
      model: text(raw, "model"),
      policy: object(raw["policy"], "policy"),
      offsets: offsetUnit(raw),
      part: int(raw, "part"),
      at: int(raw, "at"),
      kind: "kind" in raw ? text(raw, "kind") : "text",
      name: optional(raw, "name", text),
      seed: optional(raw, "seed", seed),
      ref: optional(raw, "ref", text),
    }),
  ],
  [
    "tentative",
    (raw) => ({
      type: "tentative",
      ...envelope(raw),
      at: int(raw, "at"),
      text: text(raw, "text"),
      verified: optional(raw, "verified", int),
      confidence: optional(raw, "confidence", float),
      tokens: optional(raw, "tokens", tokens),
    }),
  ],
  [
    "commit",
    (raw) => ({
      type: "commit",
      ...envelope(raw),
      at: int(raw, "at"),
      text: text(raw, "text"),
      retract: optional(raw, "retract", (from, key) => retraction(object(from[key], key))),
      cut_short: optional(raw, "cut_short", bool) ?? false,
      tokens: optional(raw, "tokens", tokens),
    }),
  ],
  ["retract", (raw) => ({ type: "retract", ...envelope(raw), ...retraction(raw) })],
  [
    "part",
    (raw) => ({
      type: "part",
      ...envelope(raw),
      part: int(raw, "part"),
      kind: text(raw, "kind"),
      name: optional(raw, "name", text),
    }),
  ],
  [
    "finish",
    (raw) => ({
      type: "finish",
      ...envelope(raw),
      at: int(raw, "at"),
      reason: text(raw, "reason"),
      usage: usage(object(raw["usage"], "usage")),
      digest: text(raw, "digest"),
      stats: stats(object(raw["stats"], "stats")),
    }),
  ],
  [
    "error",
    (raw) => ({
      type: "error",
      ...envelope(raw),
      code: text(raw, "code"),
      message: text(raw, "message"),
      retryable: bool(raw, "retryable"),
      ended: optional(raw, "ended", bool) ?? false,
      at: int(raw, "at"),
      param: optional(raw, "param", text),
      ref: optional(raw, "ref", text),
    }),
  ],
  ["heartbeat", (raw) => ({ type: "heartbeat", ...envelope(raw) })],
]);

function retraction(raw: Raw): Retraction {
  return { at: int(raw, "at"), n: int(raw, "n"), cause: text(raw, "cause") };
}

function tokens(raw: Raw, key: string): Token[] {
  const value = raw[key];
  if (!Array.isArray(value)) throw wrong(key, "a list");
  return value.map((item: unknown) => {
    const token = object(item, key);
    return {
      id: int(token, "id"),
      n: int(token, "n"),
      logprob: optional(token, "logprob", float),
      confidence: optional(token, "confidence", float),
    };
  });
}

function usage(raw: Raw): Usage {
  return {
    prompt_tokens: count(raw, "prompt_tokens"),
    cached_prompt_tokens: count(raw, "cached_prompt_tokens"),
    completion_tokens: count(raw, "completion_tokens"),
    drafted_tokens: count(raw, "drafted_tokens"),
    accepted_tokens: count(raw, "accepted_tokens"),
    rejected_tokens: count(raw, "rejected_tokens"),
  };
}

function stats(raw: Raw): Stats {
  return {
    ttfv_ms: optional(raw, "ttfv_ms", float),
    ttc_ms: optional(raw, "ttc_ms", float),
    erased_units: count(raw, "erased_units"),
    normalized_erasure: "normalized_erasure" in raw ? float(raw, "normalized_erasure") : 0,
    retractions: count(raw, "retractions"),
    longest_tail: count(raw, "longest_tail"),
    acceptance_rate: optional(raw, "acceptance_rate", float),
    tokens_per_step: optional(raw, "tokens_per_step", float),
  };
}

/** An optional field: missing and null mean the same. */
function optional<T>(raw: Raw, key: string, read: (raw: Raw, key: string) => T): T | null {
  return raw[key] === undefined || raw[key] === null ? null : read(raw, key);
}

function object(value: unknown, what: string): Raw {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw wrong(what, "an object");
  }
  return value as Raw;
}

function text(raw: Raw, key: string): string {
  const value = raw[key];
  if (typeof value !== "string") throw wrong(key, "a string");
  return value;
}

/** Beyond 2^53 - 1 a JavaScript number no longer tells neighbours apart (RFC 7493, 2.2). */
function int(raw: Raw, key: string): number {
  const value = raw[key];
  if (!Number.isSafeInteger(value)) throw wrong(key, "an integer up to 2^53 - 1");
  return value as number;
}

/** A counter that is 0 where it is left out. */
function count(raw: Raw, key: string): number {
  return key in raw ? int(raw, key) : 0;
}

function float(raw: Raw, key: string): number {
  const value = raw[key];
  if (typeof value !== "number" || !Number.isFinite(value)) throw wrong(key, "a number");
  return value;
}

function bool(raw: Raw, key: string): boolean {
  const value = raw[key];
  if (typeof value !== "boolean") throw wrong(key, "true or false");
  return value;
}

/** A seed reaches 2^63 - 1. One a number cannot hold exactly is null, not a wrong seed. */
function seed(raw: Raw, key: string): number | null {
  const value = raw[key];
  if (!Number.isInteger(value)) throw wrong(key, "an integer");
  return Number.isSafeInteger(value) ? (value as number) : null;
}

function offsetUnit(raw: Raw): OffsetUnit {
  const value = raw["offsets"];
  const unit = OFFSET_UNITS.find((known) => known === value);
  if (unit === undefined) throw wrong("offsets", `one of ${OFFSET_UNITS.join(", ")}`);
  return unit;
}

function wrong(what: string, expected: string): RemoteProtocolError {
  return new RemoteProtocolError(`${what} is not ${expected}`);
}
