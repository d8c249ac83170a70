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
  /** What the stream was given less of because the server was overloaded; an open set. Null: of nothing. */
  readonly degraded: readonly string[] | null;
  /** The model that tentative text comes from, where that is not `model`. */
  readonly draft_model: string | null;
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
  /** How long the server asks to be left alone. */
  readonly retry_after_s: number | null;
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
  if (!Object.hasOwn(FIELDS, type)) return null;
  const known = type as ServerEvent["type"];
  return { type: known, ...read(raw, ENVELOPE), ...read<object>(raw, FIELDS[known]) } as ServerEvent;
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

type Read<T> = (raw: Raw, key: string) => T;

/** How each field of a `T` is read. */
type Fields<T> = { readonly [K in keyof T]: Read<T[K]> };

type Own<E> = Fields<Omit<E, "type" | keyof Envelope>>;

const ENVELOPE: Fields<Envelope> = { stream: maybe(text), t: maybe(float) };

const RETRACTION: Fields<Retraction> = { at: int, n: int, cause: text };

const TOKEN: Fields<Token> = { id: int, n: int, logprob: maybe(float), confidence: maybe(float) };

const USAGE: Fields<Usage> = {
  prompt_tokens: count,
  cached_prompt_tokens: count,
  completion_tokens: count,
  drafted_tokens: count,
  accepted_tokens: count,
  rejected_tokens: count,
};

const STATS: Fields<Stats> = {
  ttfv_ms: maybe(float),
  ttc_ms: maybe(float),
  erased_units: count,
  normalized_erasure: otherwise(0, float),
  retractions: count,
  longest_tail: count,
  acceptance_rate: maybe(float),
  tokens_per_step: maybe(float),
};

const FIELDS: { readonly [T in ServerEvent["type"]]: Own<Extract<ServerEvent, { type: T }>> } = {
  open: {
    v: int,
    epoch: int,
    model: text,
    policy: (raw, key) => object(raw[key], key),
    offsets: offsetUnit,
    part: int,
    at: int,
    kind: otherwise("text", text),
    name: maybe(text),
    seed: maybe(seed),
    ref: maybe(text),
    degraded: maybe(list(text)),
    draft_model: maybe(text),
  },
  tentative: { at: int, text, verified: maybe(int), confidence: maybe(float), tokens: maybe(list(record(TOKEN))) },
  commit: {
    at: int,
    text,
    retract: maybe(record(RETRACTION)),
    cut_short: truth,
    tokens: maybe(list(record(TOKEN))),
  },
  retract: RETRACTION,
  part: { part: int, kind: text, name: maybe(text) },
  finish: {
    at: int,
    reason: text,
    usage: record(USAGE),
    digest: text,
    stats: record(STATS),
  },
  error: {
    code: text,
    message: text,
    retryable: bool,
    ended: truth,
    at: int,
    param: maybe(text),
    ref: maybe(text),
    retry_after_s: maybe(float),
  },
  heartbeat: {},
};

function read<T>(raw: Raw, fields: Fields<T>): T {
  const values: Partial<T> = {};
  for (const key in fields) values[key] = fields[key](raw, key);
  return values as T;
}

function record<T>(fields: Fields<T>): Read<T> {
  return (raw, key) => read(object(raw[key], key), fields);
}

function list<T>(reader: Read<T>): Read<T[]> {
  return (raw, key) => {
    const value = raw[key];
    if (!Array.isArray(value)) throw wrong(key, "a list");
    return value.map((item: unknown) => reader({ [key]: item }, key));
  };
}

/** An optional field: missing and null mean the same. */
function maybe<T>(reader: Read<T>): Read<T | null> {
  return (raw, key) => (raw[key] === undefined || raw[key] === null ? null : reader(raw, key));
}

/** A field that stands for `value` where it is left out. */
function otherwise<T>(value: T, reader: Read<T>): Read<T> {
  return (raw, key) => (key in raw ? reader(raw, key) : value);
}

/** False where it is left out, or null. */
function truth(raw: Raw, key: string): boolean {
  return maybe(bool)(raw, key) ?? false;
}

/** A counter that is 0 where it is left out. */
function count(raw: Raw, key: string): number {
  return otherwise(0, int)(raw, key);
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
