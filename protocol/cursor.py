"""The resume cursor: all that a reader has to keep (SPEC section 6.1)."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import NamedTuple

from protocol.errors import ErrorCode, RequestError

# No leading zeros, so a cursor has one spelling; as many digits as the largest integer has.
_INTEGER = r"(0|[1-9][0-9]{0,15})"
PATTERN = rf"{_INTEGER}\.{_INTEGER}\.{_INTEGER}(\.(finish|error))?"
"""Also for JavaScript and JSON Schema; unanchored."""
_CURSOR = re.compile(PATTERN, re.ASCII)
# JavaScript's numbers are exact up to here.
_LARGEST = 2**53 - 1


class Mark(StrEnum):
    """How a reader was told that nothing more comes."""

    FINISH = "finish"
    ERROR = "error"


class Cursor(NamedTuple):
    """`epoch.part.offset`: the reader holds `offset` units of committed text of `part`, and all
    parts before it. `mark`: it was told the end, too.
    """

    epoch: int
    part: int
    offset: int
    mark: Mark | None = None

    def __str__(self) -> str:
        position = f"{self.epoch}.{self.part}.{self.offset}"
        return position if self.mark is None else f"{position}.{self.mark}"


def parse(text: str) -> Cursor:
    """Raises RequestError(BAD_CURSOR)."""
    match = _CURSOR.fullmatch(text)
    numbers = [int(digits) for digits in match.groups()[:3]] if match else []
    if match is None or max(numbers) > _LARGEST:
        raise RequestError(
            ErrorCode.BAD_CURSOR,
            "a cursor is epoch.part.offset, three decimal integers without leading zeros, each at"
            " most 2^53 - 1; after the end, .finish or .error follows",
            "cursor",
        )
    mark = match.group(5)
    return Cursor(*numbers, mark=None if mark is None else Mark(mark))
