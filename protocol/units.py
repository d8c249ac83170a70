"""The three units offsets are counted in (SPEC section 2.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.events import OffsetUnit

if TYPE_CHECKING:
    from collections.abc import Callable

# Looked up once: `length` runs several times per event and reader.
_CODEPOINT = OffsetUnit.CODEPOINT
_UTF8 = OffsetUnit.UTF8


def length(text: str, unit: OffsetUnit) -> int:
    """Length of `text` in `unit`."""
    return length_in(unit)(text)


def length_in(unit: OffsetUnit) -> Callable[[str], int]:
    """`length` for one unit, to be kept where much is counted in it."""
    if unit is _CODEPOINT:
        return len
    return _utf8_length if unit is _UTF8 else _utf16_length


def _utf8_length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8"))


def _utf16_length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2


def index(text: str, offset: int, unit: OffsetUnit) -> int:
    """Code point index in `text` of the position `offset` units from its start.

    Raises ValueError when `offset` lies outside `text` or inside a code point.
    """
    if not 0 <= offset <= length(text, unit):
        raise ValueError(f"offset {offset} lies outside a text of {length(text, unit)} units")
    if unit is _CODEPOINT or text.isascii():
        return offset
    encoding, width = ("utf-8", 1) if unit is _UTF8 else ("utf-16-le", 2)
    head = text.encode(encoding)[: offset * width]
    try:
        return len(head.decode(encoding))
    except UnicodeDecodeError:
        raise ValueError(f"offset {offset} lies inside a code point") from None
