"""Which token stands where in a part's text (SPEC section 3.4)."""

from __future__ import annotations

from bisect import bisect_right
from math import prod
from typing import TYPE_CHECKING

from protocol.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from protocol.events import Token


class _Run:
    """Tokens one after the other, and where each one's text ends in the part, in code points."""

    __slots__ = ("ends", "tokens")

    def __init__(self) -> None:
        self.tokens: list[Token] = []
        self.ends: list[int] = []

    def between(self, start: int, stop: int) -> Iterator[tuple[Token, int]]:
        """Tokens whose text ends in (`start`, `stop`], with their ends."""
        first, last = bisect_right(self.ends, start), bisect_right(self.ends, stop)
        return zip(self.tokens[first:last], self.ends[first:last], strict=True)

    def extend(self, tokens: Sequence[Token], start: int, end: int) -> None:
        """`tokens` are those of the text from `start` to `end`, or none at all.

        A token without text of its own (its bytes are incomplete) ends with the code point that it
        helps to complete.
        """
        reached = start
        ends: list[int] = []
        for token in tokens:
            reached += token.n
            ends.append(reached if token.n else reached + 1)
        if tokens and reached != end:
            raise LedgerError(
                "tokens_cover_text", f"the tokens end at {reached}, their text at {end}"
            )
        self.tokens += tokens
        self.ends += ends

    def keep(self, start: int, stop: int) -> None:
        """Forget all tokens but those whose text ends in (`start`, `stop`]."""
        first, last = bisect_right(self.ends, start), bisect_right(self.ends, stop)
        self.tokens = self.tokens[first:last]
        self.ends = self.ends[first:last]


class Marks:
    """The tokens of one part: those of committed text, then those of the tail.

    A source may leave tokens out; where it gives them, they cover their text exactly.
    """

    __slots__ = ("_committed", "_tail")

    def __init__(self) -> None:
        self._committed = _Run()
        self._tail = _Run()

    def between(self, start: int, stop: int) -> list[tuple[Token, int]]:
        """Tokens whose text ends in (`start`, `stop`], in order, each with the place where it ends.

        A token's text is its `n` code points before that place.
        """
        return [*self._committed.between(start, stop), *self._tail.between(start, stop)]

    def confidence(self, start: int, stop: int) -> float | None:
        """Product over the tail's tokens whose text ends in (`start`, `stop`]; None where there
        are none or one has no confidence.
        """
        chances = [token.confidence for token, _ in self._tail.between(start, stop)]
        known = [chance for chance in chances if chance is not None]
        return prod(known) if known and len(known) == len(chances) else None

    def draft(self, tokens: Sequence[Token], start: int, end: int) -> None:
        """The tail reaches from `start` to `end`, and these are its tokens."""
        tail = _Run()
        tail.extend(tokens, start, end)
        self._tail = tail

    def commit(self, tokens: Sequence[Token], start: int, end: int, standing: int) -> None:
        """Text from `start` to `end` is committed, and these are its tokens; of the earlier tail
        all up to `standing` stands.
        """
        self._committed.extend(tokens, start, end)
        self._tail.keep(end, standing)

    def drop_tail(self) -> None:
        self._tail = _Run()
