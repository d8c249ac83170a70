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


def _reach(tokens: Sequence[TokenLike]) -> int:
    """Code points `tokens` cover together."""
    return sum(token.n for token in tokens)


def _placed(tokens: Sequence[TokenLike], start: int) -> list[TokenMark]:
    """`tokens` one after the other from code point `start` on."""
    marks: list[TokenMark] = []
    for token in tokens:
        end = start + token.n
        place = (start, end) if token.n else (start + 1, start + 1)
        marks.append(TokenMark(token.id, *place, token.logprob, token.confidence))
        start = end
    return marks


class Marks:
    """The tokens of one part: verified ones, then drafted ones.

    Verified tokens may reach past the committed text while text of theirs is held back in the tail.
    Once a part has been given tokens, all its further text must come with them.
    """

    __slots__ = ("_drafted", "_given", "_verified", "_verified_end")

    def __init__(self) -> None:
        self._verified: list[TokenMark] = []
        self._drafted: list[TokenMark] = []
        self._verified_end = 0
        self._given = False

    def between(self, start: int, stop: int) -> list[TokenMark]:
        """Tokens whose text ends in (`start`, `stop`], in order."""
        found: list[TokenMark] = []
        for marks in (self._verified, self._drafted):
            if marks:
                first = bisect_right(marks, start, key=_end)
                found += marks[first : bisect_right(marks, stop, key=_end)]
        return found

    def confidence(self, start: int, stop: int) -> float | None:
        """Chance that the text from `start` to `stop` stands: the product over its drafted tokens.

        1.0 for verified text; None where drafted text came without tokens or confidences.
        """
        if stop <= self._verified_end:
            return 1.0
        first = bisect_right(self._drafted, start, key=_end)
        last = bisect_right(self._drafted, stop, key=_end)
        chances = [mark.confidence for mark in self._drafted[first:last]]
        known = [chance for chance in chances if chance is not None]
        return prod(known) if known and len(known) == len(chances) else None

    def draft(self, tokens: Sequence[TokenLike], committed: int, total: int) -> None:
        """`tokens` make up the end of the text of `total` code points, `committed` of which are
        committed; what of the tail lies before them is verified text held back.
        """
        start = total - _reach(tokens)
        self._require_drafted_tokens_match_text(tokens, start, committed)
        self._drafted = _placed(tokens, start)

    def _require_drafted_tokens_match_text(
        self, tokens: Sequence[TokenLike], start: int, committed: int
    ) -> None:
        if not tokens:
            return
        if start != self._verified_end if self._given else start < committed:
            raise LedgerError(
                "tokens_match_text",
                f"drafted tokens begin at {start}, verified text ends at {self._verified_end}",
            )

    def verify(
        self, tokens: Sequence[TokenLike], committed: int, total: int, standing: int
    ) -> None:
        """`tokens` are verified; text is now committed to `committed` and goes on to `total`, and
        what was there before is unchanged up to `standing`.
        """
        given = self._given or bool(tokens)
        end = self._verified_end + _reach(tokens) if given else committed
        self._require_verified_tokens_match_text(end, committed, total)
        self._verified += _placed(tokens, self._verified_end)
        self._given = given
        self._verified_end = end
        if self._drafted:
            self._drafted = [m for m in self._drafted if end < m.end <= standing]

    def _require_verified_tokens_match_text(self, end: int, committed: int, total: int) -> None:
        """Committed text has tokens to its end. They reach past the tail only where a stop sequence
        cut their text away or a restart dropped it; there is no tail then.
        """
        if end < committed or end > total > committed:
            raise LedgerError(
                "tokens_match_text",
                f"verified tokens end at {end}, committed text at {committed}, the tail at {total}",
            )

    def drop_drafted(self) -> None:
        self._drafted = []
