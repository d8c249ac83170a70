/**
 * What can go wrong, by whose fault (SPEC section 9).
 *
 * - `RequestError`: a user's mistake, such as a malformed cursor.
 * - `RemoteProtocolError`: the server sent what the protocol forbids.
 * - `LocalProtocolError`: the caller asked a state machine for something it must not do. A bug.
 */

/** Codes this side gives of its own accord; an `error` event may carry any other string. */
export type ReceiverCode = "bad_cursor" | "gap" | "protocol_violation";

export class WetinkError extends Error {
  readonly code: ReceiverCode;

  constructor(code: ReceiverCode, message: string) {
    super(message);
    this.name = new.target.name;
    this.code = code;
  }
}

export class RequestError extends WetinkError {}

export class RemoteProtocolError extends WetinkError {
  constructor(message: string, code: "gap" | "protocol_violation" = "protocol_violation") {
    super(code, message);
  }
}

export class LocalProtocolError extends WetinkError {
  constructor(message: string) {
    super("protocol_violation", message);
  }
}
