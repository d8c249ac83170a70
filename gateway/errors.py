"""What goes wrong in the gateway, and the HTTP status of each error code.

A user's mistake is a `protocol.errors.RequestError`. A source of tokens that cannot go on is a
`BackendError`. Anything else that escapes is our bug and becomes `internal`.
"""

from __future__ import annotations

import msgspec

from protocol.errors import ErrorCode, WetinkError


class BackendError(WetinkError):
    """The source of tokens cannot serve: `retryable` says whether waiting may help."""

    def __init__(
        self,
        message: str,
        code: ErrorCode = ErrorCode.ENGINE_UNAVAILABLE,
        *,
        retryable: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.retryable = retryable


class ConfigError(WetinkError):
    """The configuration cannot be used; the message names the key and what is allowed.

    `key`: the setting ("server.port") where the message is about the value of one and begins with
    its name.
    """

    def __init__(self, message: str, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


HTTP_STATUS: dict[ErrorCode, int] = {
    ErrorCode.MALFORMED_JSON: 400,
    ErrorCode.INVALID_VALUE: 400,
    ErrorCode.MISSING_FIELD: 400,
    ErrorCode.UNKNOWN_FIELD: 400,
    ErrorCode.CONTEXT_EXCEEDED: 400,
    ErrorCode.BODY_TOO_LARGE: 413,
    ErrorCode.HEADERS_TOO_LARGE: 431,
    ErrorCode.REQUEST_TIMEOUT: 408,
    ErrorCode.UNAUTHORIZED: 401,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.UNKNOWN_MODEL: 404,
    ErrorCode.UNKNOWN_STREAM: 404,
    ErrorCode.UNKNOWN_REF: 404,
    ErrorCode.UNKNOWN_MESSAGE: 400,
    ErrorCode.DUPLICATE_REF: 409,
    ErrorCode.ALREADY_ATTACHED: 409,
    ErrorCode.WITHDRAWN: 409,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.METHOD_NOT_ALLOWED: 405,
    ErrorCode.BAD_CURSOR: 400,
    ErrorCode.CURSOR_AHEAD: 409,
    ErrorCode.UNKNOWN_EPOCH: 410,
    ErrorCode.STREAM_EXPIRED: 410,
    ErrorCode.TOO_MANY_STREAMS: 429,
    ErrorCode.TOO_MANY_CONNECTIONS: 429,
    ErrorCode.RATE_LIMITED: 429,
    ErrorCode.OVERLOADED: 503,
    ErrorCode.SLOW_READER: 503,
    ErrorCode.ENGINE_UNAVAILABLE: 503,
    ErrorCode.ENGINE_FAILED: 500,
    ErrorCode.POLICY_FAILED: 500,
    ErrorCode.SHUTTING_DOWN: 503,
    ErrorCode.INTERNAL: 500,
    ErrorCode.GAP: 500,
    ErrorCode.PROTOCOL_VIOLATION: 500,
}

RETRYABLE = frozenset(
    {
        ErrorCode.TOO_MANY_STREAMS,
        ErrorCode.TOO_MANY_CONNECTIONS,
        ErrorCode.RATE_LIMITED,
        ErrorCode.OVERLOADED,
        ErrorCode.ENGINE_UNAVAILABLE,
        ErrorCode.SHUTTING_DOWN,
        ErrorCode.SLOW_READER,
    }
)
"""Codes after which the same request may succeed a little later."""

RETRY_AFTER_S = 1
"""`Retry-After` of 429 and 503 where nothing better is known: capacity comes back in seconds, not
minutes."""


class ErrorDetail(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    message: str
    param: str | None = None
    """Dotted path into the request, a query parameter or a header; null: no field is at fault."""


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """Body of every response with a 4xx or 5xx status."""

    error: ErrorDetail


def error_body(code: ErrorCode, message: str, param: str | None = None) -> bytes:
    detail = ErrorDetail(code=code.value, message=message, param=param)
    return msgspec.json.encode(ErrorBody(error=detail))
