"""What upstreams refuse and what goes wrong with them, in our words."""

from __future__ import annotations

import math
from email.utils import parsedate_to_datetime
from typing import Any, cast

import msgspec

from gateway.errors import BackendError
from protocol.errors import ErrorCode, RequestError
from protocol.refusals import cut

LONGEST_MESSAGE = 300
"""Code points of an upstream's own words that are passed on."""
_CONTEXT_CODES = {"context_length_exceeded", "context_exceeded", "exceed_context_size_error"}
_CONTEXT_WORDS = ("maximum context length", "context size", "context length", "max_model_len")


class UpstreamError(Exception):
    """An upstream failed a request, and another, or a later one, may not.

    `retry_after_s`: when it says it may be asked again; `refused_connection`: nothing listens
    there.
    """

    def __init__(
        self,
        message: str,
        code: ErrorCode = ErrorCode.ENGINE_UNAVAILABLE,
        *,
        retry_after_s: float | None = None,
        refused_connection: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.retry_after_s = retry_after_s
        self.refused_connection = refused_connection

    @property
    def is_busy(self) -> bool:
        """It is well and has too much to do."""
        return self.code in (ErrorCode.RATE_LIMITED, ErrorCode.OVERLOADED)

    def told(self) -> RequestError | BackendError:
        """As whoever asked for the generation is told."""
        if self.is_busy:
            return RequestError(self.code, self.message, retry_after_s=self.retry_after_s)
        return BackendError(self.message, self.code, retryable=True)


class ErrorDetail(msgspec.Struct, frozen=True):
    message: str = ""
    code: str | int | None = None
    type: str | None = None
    param: str | None = None


def detail_of(body: bytes) -> ErrorDetail:
    """Of OpenAI's `{"error": {…}}`, and of what else is answered for it."""
    try:
        raw: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ErrorDetail(body[: 4 * LONGEST_MESSAGE].decode("utf-8", "replace").strip())
    return detail_in(raw)


def detail_in(raw: object) -> ErrorDetail:
    """`raw`: decoded JSON, whatever it is."""
    inner = raw
    if isinstance(raw, dict):
        outer = cast("dict[str, object]", raw)
        inner = outer.get("error", outer)
    if not isinstance(inner, dict):
        return ErrorDetail(inner if isinstance(inner, str) else "")
    fields = cast("dict[str, object]", inner)
    message, code = fields.get("message") or fields.get("detail"), fields.get("code")
    kind, param = fields.get("type"), fields.get("param")
    return ErrorDetail(
        message=message if isinstance(message, str) else "",
        code=code if isinstance(code, str | int) else None,
        type=kind if isinstance(kind, str) else None,
        param=param if isinstance(param, str) else None,
    )


def refused(
    upstream: str, status: int, body: bytes, retry_after: str | None, now: float
) -> RequestError | BackendError | UpstreamError:
    """What an answer other than 200 means. An UpstreamError where asking elsewhere, or later, may
    help. `now`: Unix time, in seconds.
    """
    detail = detail_of(body)
    said = f": {cut_message(detail.message)}" if detail.message else ""
    after_s = retry_after_s(retry_after, now)
    match status:
        case 400 | 413 | 422:
            code = ErrorCode.CONTEXT_EXCEEDED if _is_context(detail) else ErrorCode.INVALID_VALUE
            param = detail.param and cut(detail.param)
            return RequestError(code, f"upstream {upstream} refuses this request{said}", param)
        case 401 | 402 | 403:
            # The gateway's own key: nothing that its user did, or could mend.
            # Its words are not repeated: they may quote the key.
            return BackendError(f"upstream {upstream} does not let this gateway in ({status})")
        case 404:
            return BackendError(
                f"upstream {upstream} does not serve this (status 404){said}",
                ErrorCode.ENGINE_FAILED,
            )
        case 429:
            return UpstreamError(
                f"upstream {upstream} has had too many requests{said}",
                ErrorCode.RATE_LIMITED,
                retry_after_s=after_s,
            )
        case 503 | 529:
            return UpstreamError(
                f"upstream {upstream} is overloaded{said}",
                ErrorCode.OVERLOADED,
                retry_after_s=after_s,
            )
        case _:
            return UpstreamError(
                f"upstream {upstream} failed (status {status}){said}",
                ErrorCode.ENGINE_FAILED if status == 500 else ErrorCode.ENGINE_UNAVAILABLE,
                retry_after_s=after_s,
            )


def _is_context(detail: ErrorDetail) -> bool:
    if {detail.code, detail.type} & _CONTEXT_CODES:
        return True
    return any(words in detail.message.lower() for words in _CONTEXT_WORDS)


def cut_message(message: str) -> str:
    line = " ".join(message.split())
    return line if len(line) <= LONGEST_MESSAGE else line[:LONGEST_MESSAGE] + "…"


def retry_after_s(header: str | None, now: float) -> float | None:
    """`Retry-After` in seconds from `now` (RFC 9110, section 10.2.3); None where there is none that
    can be understood.
    """
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - now
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
