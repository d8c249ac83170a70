"""What a server says instead of what it was asked for, as an HTTP answer (SPEC section 9.1)."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec

from wetink.errors import RequestRefused
from wetink.transports.base import Interrupted

if TYPE_CHECKING:
    from collections.abc import Mapping


class _ErrorDetail(msgspec.Struct):
    code: str
    message: str
    param: str | None = None


class _ErrorBody(msgspec.Struct):
    error: _ErrorDetail


def refusal(
    status: int, reason: str, headers: Mapping[str, str], body: bytes
) -> RequestRefused | Interrupted:
    """What a status other than the expected one means. `reason`: the phrase behind it; `headers`:
    by name, in whatever case.
    """
    wait_s = retry_after(headers)
    try:
        detail = msgspec.json.decode(body, type=_ErrorBody).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        message = f"HTTP {status} {reason}".strip()
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return Interrupted(message, retry_after=wait_s)
        return RequestRefused(f"http_{status}", message, retry_after_s=wait_s)
    return RequestRefused(detail.code, detail.message, detail.param, retry_after_s=wait_s)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, where the server asked to wait."""
    value = headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() else None
