/**
 * What can go wrong, by whose fault (SPEC section 9).
 *
 * - `RequestError`: a user's mistake, such as a malformed cursor.
 * - `RemoteProtocolError`: the server sent what the protocol forbids.
 * - `LocalProtocolError`: the caller asked a state machine for something it must not do. A bug.
 *
 * All of them are `WetinkError`, and so is what a server refuses and what a connection ends with.
 */

/** A server's codes (SPEC 9.2). */
export type ServerCode =
  | "malformed_json"
  | "invalid_value"
  | "missing_field"
  | "unknown_field"
  | "unknown_message"
  | "context_exceeded"
  | "body_too_large"
  | "headers_too_large"
  | "request_timeout"
  | "unknown_model"
  | "unknown_stream"
  | "unknown_ref"
  | "not_found"
  | "method_not_allowed"
  | "duplicate_ref"
  | "already_attached"
  | "withdrawn"
  | "bad_cursor"
  | "cursor_ahead"
  | "unknown_epoch"
  | "stream_expired"
  | "too_many_streams"
  | "overloaded"
  | "engine_unavailable"
  | "shutting_down"
  | "slow_reader"
  | "engine_failed"
  | "policy_failed"
  | "internal";

/**
 * This side's own codes: verdicts on what the server sent (`gap`, `protocol_violation`), an answer
 * that is not a gateway's (`bad_response`), a connection that did not come back
 * (`connection_lost`), and what the caller asked for (`aborted`, `closed`).
 */
export type ClientCode =
  | "gap"
  | "protocol_violation"
  | "bad_response"
  | "connection_lost"
  | "aborted"
  | "closed";

/** An open set: a newer server may send a code that this version does not know. */
// `& {}` keeps the known codes in an editor's suggestions.
export type WetinkCode = ServerCode | ClientCode | (string & {});

export interface ErrorDetails {
  /** Trying again may help: reattaching, or where the stream has `ended`, repeating its request. */
  readonly retryable?: boolean;
  readonly ended?: boolean;
  readonly field?: string | null;
  readonly status?: number | null;
  readonly retryAfterMs?: number | null;
  readonly cause?: unknown;
}

export class WetinkError extends Error {
  // Constant, because a minifier renames classes.
  override readonly name = "WetinkError";
  declare readonly code: WetinkCode;
  /** Trying again may help: reattaching, or where the stream has `ended`, repeating its request. */
  declare readonly retryable: boolean;
  /** The stream itself has failed. */
  declare readonly ended: boolean;
  /** The field at fault, as a dotted path (`policy.unit`), or a header; null where none is. */
  declare readonly field: string | null;
  /** HTTP status of a refusal; null where none was received. */
  declare readonly status: number | null;
  /** How long the server asks to be left alone, in milliseconds. */
  declare readonly retryAfterMs: number | null;

  constructor(code: WetinkCode, message: string, { cause, ...details }: ErrorDetails = {}) {
    super(message, cause === undefined ? {} : { cause });
    const unknown = { retryable: false, ended: false, field: null, status: null, retryAfterMs: null };
    Object.assign(this, unknown, details, { code });
  }
}

export class RequestError extends WetinkError {}

export class RemoteProtocolError extends WetinkError {
  constructor(message: string, code: "gap" | "protocol_violation" = "protocol_violation") {
    super(code, message, { retryable: code === "gap" });
  }
}

export class LocalProtocolError extends WetinkError {
  constructor(message: string) {
    super("protocol_violation", message);
  }
}
