"""The resume cursor: all that a reader has to keep (SPEC section 6)."""

from __future__ import annotations

import re
from typing import NamedTuple

from protocol.errors import ErrorCode, RequestError

# No leading zeros, so a cursor has one spelling; as many digits as the largest integer has.
_INTEGER = r"(0|[1-9][0-9]{0,15})"
_CURSOR = re.compile(rf"{_INTEGER}\.{_INTEGER}\.{_INTEGER}", re.ASCII)
# JavaScript's numbers are exact up to here.
_LARGEST = 2**53 - 1


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
    numbers = [int(digits) for digits in match.groups()] if match else []
    if not numbers or max(numbers) > _LARGEST:
        raise RequestError(
            ErrorCode.BAD_CURSOR,
            "a cursor is epoch.part.offset, three decimal integers without leading zeros, each at"
            " most 2^53 - 1",
            "cursor",
        )
    return Cursor(*numbers)
