"""Refusals and failures as OpenAI's clients know them: its types, its codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.errors import HTTP_STATUS, BackendError
from gateway.responses import json_response, refusal_headers, retry_after
from protocol.errors import ErrorCode, RequestError

if TYPE_CHECKING:
    from starlette.responses import Response

    from protocol.events import Error

CODES: dict[ErrorCode, str] = {
    ErrorCode.MISSING_FIELD: "missing_required_parameter",
    ErrorCode.UNKNOWN_FIELD: "unknown_parameter",
    ErrorCode.CONTEXT_EXCEEDED: "context_length_exceeded",
    ErrorCode.UNKNOWN_MODEL: "model_not_found",
    ErrorCode.NOT_FOUND: "unknown_url",
    ErrorCode.TOO_MANY_STREAMS: "rate_limit_exceeded",
    ErrorCode.INTERNAL: "internal_error",
}
"""Where OpenAI has a code of its own; the others are ours."""

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class UnsupportedError(RequestError):
    """A parameter of OpenAI's, or a value of one, that is refused here."""

    def __init__(self, param: str, note: str) -> None:
        super().__init__(ErrorCode.INVALID_VALUE, f"{param}: {note}", param)


class OpenAIErrorDetail(msgspec.Struct, frozen=True):
    message: str
    type: str
    param: str | None
    code: str


class OpenAIError(msgspec.Struct, frozen=True):
    """Body of a refusal, as OpenAI's clients read it."""

    error: OpenAIErrorDetail


def error_shape(error: RequestError | BackendError) -> OpenAIError:
    status = HTTP_STATUS[error.code]
    code = CODES.get(error.code, error.code.value)
    return OpenAIError(
        OpenAIErrorDetail(
            message=error.message,
            type=_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error"),
            param=getattr(error, "param", None),
            code="unsupported_parameter" if isinstance(error, UnsupportedError) else code,
        )
    )


def refused(error: RequestError | BackendError) -> Response:
    """The answer to a request that cannot be served."""
    status = HTTP_STATUS[error.code]
    return json_response(error_shape(error), status, refusal_headers(status, retry_after(error)))


def as_request_error(event: Error) -> RequestError:
    known = {code.value: code for code in ErrorCode}
    return RequestError(known.get(event.code, ErrorCode.ENGINE_FAILED), event.message)


def cut_short(reason: str) -> RequestError:
    return RequestError(
        ErrorCode.ENGINE_FAILED, f"the answer is not complete: the stream ended with {reason!r}"
    )
