"""What can go wrong, by whose fault (SPEC section 9).

* `RequestError`: a user's mistake. Travels to the user as `{"error": {code, message, param}}`.
* `RemoteProtocolError`: the peer broke the protocol. The stream it happened on is over.
* `LocalProtocolError`: our own code misused a state machine. A bug, never caught and continued.
"""

from __future__ import annotations

from enum import StrEnum


class ErrorCode(StrEnum):
    """Every code that can stand in an error body, an `error` event or a WebSocket error."""

    # the request (4xx)
    MALFORMED_JSON = "malformed_json"
    INVALID_VALUE = "invalid_value"
    MISSING_FIELD = "missing_field"
    UNKNOWN_FIELD = "unknown_field"
    CONTEXT_EXCEEDED = "context_exceeded"
    BODY_TOO_LARGE = "body_too_large"
    HEADERS_TOO_LARGE = "headers_too_large"
    REQUEST_TIMEOUT = "request_timeout"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    UNKNOWN_MODEL = "unknown_model"
    UNKNOWN_STREAM = "unknown_stream"
    UNKNOWN_REF = "unknown_ref"
    UNKNOWN_MESSAGE = "unknown_message"
    DUPLICATE_REF = "duplicate_ref"
    ALREADY_ATTACHED = "already_attached"
    WITHDRAWN = "withdrawn"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    # resume
    BAD_CURSOR = "bad_cursor"
    CURSOR_AHEAD = "cursor_ahead"
    UNKNOWN_EPOCH = "unknown_epoch"
    STREAM_EXPIRED = "stream_expired"
    # capacity and failures
    TOO_MANY_STREAMS = "too_many_streams"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    SLOW_READER = "slow_reader"
    ENGINE_UNAVAILABLE = "engine_unavailable"
    ENGINE_FAILED = "engine_failed"
    POLICY_FAILED = "policy_failed"
    SHUTTING_DOWN = "shutting_down"
    INTERNAL = "internal"
    # a reader's verdict on what a server sent
    GAP = "gap"
    PROTOCOL_VIOLATION = "protocol_violation"


class WetinkError(Exception):
    """Base of every exception this package raises."""


class RequestError(WetinkError):
    """A user's mistake, with the field it is about and what would be allowed.

    `param` is a dotted path into the request ("policy.unit"), or None when no field is at fault.
    `retry_after_s`: after how many seconds the same request may be served, where that is known.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        param: str | None = None,
        *,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s


class ProtocolError(WetinkError):
    """Base of both protocol errors, after h11: one class per guilty party."""

    def __init__(self, message: str, code: ErrorCode = ErrorCode.PROTOCOL_VIOLATION) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class RemoteProtocolError(ProtocolError):
    """The peer sent what the protocol forbids (`code` is `gap` where `at` did not match)."""


class LocalProtocolError(ProtocolError):
    """Our own side asked a state machine for something it must not do."""


class PolicyError(WetinkError):
    """A policy failed on a text. It ends the attachment, never the stream."""


class LedgerError(LocalProtocolError):
    """What was asked would break `invariant`; the ledger is unchanged."""

    def __init__(self, invariant: str, detail: str) -> None:
        super().__init__(f"{invariant}: {detail}")
        self.invariant = invariant
