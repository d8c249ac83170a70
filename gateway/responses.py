"""Answers that are JSON, refusals among them."""

from __future__ import annotations

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


def error_response(code: ErrorCode, message: str, param: str | None = None) -> Response:
    status = HTTP_STATUS[code]
    return json_response(error_body(code, message, param), status, retry_headers(status))


def refusal_response(error: RequestError | BackendError) -> Response:
    """The answer to a request that cannot be served."""
    return error_response(error.code, error.message, getattr(error, "param", None))


def retry_headers(status: int) -> dict[str, str] | None:
    """When to come back, for statuses after which that helps."""
    return {"Retry-After": str(RETRY_AFTER_S)} if status in (429, 503) else None
