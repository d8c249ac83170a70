"""Which token stands where in a part's text (SPEC section 3.4)."""

from __future__ import annotations

from bisect import bisect_right
from math import prod
from typing import TYPE_CHECKING, Protocol

import msgspec

from protocol.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Sequence


class TokenLike(Protocol):
    """A token as a backend reports it; `n` is how many code points of text it completed."""

    @property
    def id(self) -> int: ...
    @property
    def n(self) -> int: ...
    @property
    def logprob(self) -> float | None: ...
    @property
    def confidence(self) -> float | None: ...


class TokenMark(msgspec.Struct, frozen=True):
    """A token's place in its part, in code points.

    A token without text of its own (its bytes are incomplete) stands, empty, at the end of the code
    point it helps to complete: `start` = `end`.
    """

    id: int
    start: int
    end: int
    logprob: float | None = None
    confidence: float | None = None


def _end(mark: TokenMark) -> int:
    return mark.end


class Marks:
    """The tokens of one part: those of committed text, then those of the tail.

    A source may leave tokens out; where it gives them, they cover their text exactly.
    """

    __slots__ = ("_committed", "_tail")

    def __init__(self) -> None:
        self._committed: list[TokenMark] = []
        self._tail: list[TokenMark] = []

    def between(self, start: int, stop: int) -> list[TokenMark]:
        """Tokens whose text ends in (`start`, `stop`], in order."""
        return _between(self._committed, start, stop) + _between(self._tail, start, stop)

    def confidence(self, start: int, stop: int) -> float | None:
        """Product over the tail's tokens whose text ends in (`start`, `stop`]; None where there
        are none or one has no confidence.
        """
        chances = [mark.confidence for mark in _between(self._tail, start, stop)]
        known = [chance for chance in chances if chance is not None]
        return prod(known) if known and len(known) == len(chances) else None

    def draft(self, tokens: Sequence[TokenLike], start: int, end: int) -> None:
        """The tail reaches from `start` to `end`, and these are its tokens."""
        self._tail = self._covering(tokens, start, end)

    def commit(self, tokens: Sequence[TokenLike], start: int, end: int, standing: int) -> None:
        """Text from `start` to `end` is committed, and these are its tokens; of the earlier tail
        all up to `standing` stands.
        """
        self._committed += self._covering(tokens, start, end)
        if self._tail:
            self._tail = [mark for mark in self._tail if end < mark.end <= standing]

    def drop_tail(self) -> None:
        self._tail = []

    def _covering(self, tokens: Sequence[TokenLike], start: int, end: int) -> list[TokenMark]:
        """Marks of `tokens`, one after the other from `start` on."""
        marks: list[TokenMark] = []
        reached = start
        for token in tokens:
            begin, reached = reached, reached + token.n
            place = (begin, reached) if token.n else (begin + 1, begin + 1)
            marks.append(TokenMark(token.id, *place, token.logprob, token.confidence))
        self._require_tokens_cover_text(marks, reached, end)
        return marks

    def _require_tokens_cover_text(self, marks: list[TokenMark], reached: int, end: int) -> None:
        if marks and reached != end:
            raise LedgerError(
                "tokens_cover_text", f"the tokens end at {reached}, their text at {end}"
            )


def _between(marks: list[TokenMark], start: int, stop: int) -> list[TokenMark]:
    if not marks:
        return []
    first = bisect_right(marks, start, key=_end)
    return marks[first : bisect_right(marks, stop, key=_end)]
