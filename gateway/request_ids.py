"""The id of the HTTP request that is being served, for whatever is logged about it."""

from __future__ import annotations

import re
import secrets
from contextvars import ContextVar

HEADER = "X-Request-ID"
_SANE = re.compile(r"[A-Za-z0-9._:-]{1,128}")

_current: ContextVar[str | None] = ContextVar("wetink_request_id", default=None)


def current() -> str | None:
    """Of the request this task works for; None where it works for none."""
    return _current.get()


def begin(offered: str | None) -> str:
    """The id of a request that has just come: the one its sender offers, if that can do no harm in
    a log or a header, else a new one.
    """
    sane = offered is not None and _SANE.fullmatch(offered)
    request_id = offered if offered and sane else secrets.token_hex(8)
    _current.set(request_id)
    return request_id
