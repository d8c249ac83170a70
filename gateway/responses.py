"""Answers that are JSON, refusals among them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
from starlette.responses import Response

from gateway.errors import HTTP_STATUS, RETRY_AFTER_S, error_body

if TYPE_CHECKING:
    from gateway.errors import BackendError
    from protocol.errors import ErrorCode, RequestError


def json_response(
    body: object, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return Response(content, status, headers, media_type="application/json")


def error_response(
    code: ErrorCode,
    message: str,
    param: str | None = None,
    *,
    retry_after_s: float | None = None,
) -> Response:
    status = HTTP_STATUS[code]
    headers = refusal_headers(status, retry_after_s)
    return json_response(error_body(code, message, param), status, headers)


def refusal_response(error: RequestError | BackendError) -> Response:
    """The answer to a request that cannot be served."""
    param = getattr(error, "param", None)
    return error_response(error.code, error.message, param, retry_after_s=retry_after(error))


def retry_after(error: RequestError | BackendError) -> float | None:
    """Seconds until the same request may be served, where that is known."""
    return getattr(error, "retry_after_s", None)


def refusal_headers(status: int, retry_after_s: float | None = None) -> dict[str, str] | None:
    """When to come back, for statuses after which that helps; with 401, how to say who one is."""
    match status:
        case 401:
            return {"WWW-Authenticate": 'Bearer realm="wetink"'}
        case 429 | 503:
            return {"Retry-After": str(retry_seconds(status, retry_after_s))}
        case _:
            return None


def retry_seconds(status: int, retry_after_s: float | None) -> int | None:
    """Whole seconds that a client is asked to wait; None after what waiting does not help."""
    if status not in (429, 503):
        return None
    return RETRY_AFTER_S if retry_after_s is None else max(1, math.ceil(retry_after_s))
