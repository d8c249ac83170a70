"""The resume cursor: all that a reader has to keep (SPEC section 6)."""

from __future__ import annotations

import re
from typing import NamedTuple

from protocol.errors import ErrorCode, RequestError

# No leading zeros, so a cursor has one spelling; at most 16 digits, so that it is exact in every
# language's number type (2**53 has 16) and cannot be made long.
_INTEGER = r"(0|[1-9][0-9]{0,15})"
_CURSOR = re.compile(rf"{_INTEGER}\.{_INTEGER}\.{_INTEGER}", re.ASCII)


class Cursor(NamedTuple):
    """`epoch.part.offset`: the reader holds `offset` units of committed text of `part`, and all
    parts before it.
    """

    epoch: int
    part: int
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.part}.{self.offset}"


def parse(text: str) -> Cursor:
    """Raises RequestError(BAD_CURSOR)."""
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise RequestError(
            ErrorCode.BAD_CURSOR,
            "a cursor is epoch.part.offset, three decimal integers without leading zeros",
            "cursor",
        )
    epoch, part, offset = match.groups()
    return Cursor(int(epoch), int(part), int(offset))
