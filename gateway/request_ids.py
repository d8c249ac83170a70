"""The HTTP request that is being served, for whatever is logged or traced about it."""

from __future__ import annotations

import re
import secrets
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

HEADER = "X-Request-ID"
_SANE = re.compile(r"[A-Za-z0-9._:-]{1,128}")

TRACE_HEADERS = ("traceparent", "tracestate")
"""W3C Trace Context."""

_trace: ContextVar[dict[str, str]] = ContextVar("wetink_trace")
_current: ContextVar[str | None] = ContextVar("wetink_request_id", default=None)


def current() -> str | None:
    """Of the request this task works for; None where it works for none."""
    return _current.get()


def trace_headers() -> dict[str, str]:
    """What the request says of the trace it belongs to."""
    return _trace.get({})


def begin(headers: Mapping[str, str]) -> str:
    """The id of a request that has just come: the one its sender offers, if that can do no harm in
    a log or a header, else a new one.
    """
    offered = headers.get(HEADER, "")
    request_id = offered if _SANE.fullmatch(offered) else secrets.token_hex(8)
    _current.set(request_id)
    _trace.set({name: headers[name] for name in TRACE_HEADERS if name in headers})
    return request_id
