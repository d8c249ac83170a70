"""Which token stands where in a part's text (SPEC section 3.4)."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from math import isnan, nan, prod
from sys import getsizeof
from typing import TYPE_CHECKING

from protocol.errors import LedgerError
from protocol.events import Token

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from protocol.events import Alternative


class _Run:
    """Tokens one after the other, and where each one's text ends in the part, in code points."""

    __slots__ = ("ends", "tokens")

    def __init__(self, tokens: list[Token], ends: list[int]) -> None:
        self.tokens = tokens
        self.ends = ends

    def between(self, start: int, stop: int) -> Iterator[tuple[Token, int]]:
        """Tokens whose text ends in (`start`, `stop`], with their ends."""
        first, last = bisect_right(self.ends, start), bisect_right(self.ends, stop)
        return zip(self.tokens[first:last], self.ends[first:last], strict=True)


BATCH = 64
"""Committed tokens are packed so many at a time: packing them one by one costs more than all the
rest of a commit."""
_ID_LIMIT = 1 << 32

_UNKNOWN = nan
"""Stands in a packed column for a value that a token does not have."""


class _PackedRun:
    """As `_Run`, for tokens that are kept: 12 bytes for each, and 8 for each of `logprob` and
    `confidence` from the first token on that has one. Objects would take ten times as much.
    """

    __slots__ = ("_confidences", "_ids", "_lengths", "_logprobs", "_tops", "ends")

    def __init__(self) -> None:
        self.ends = array("I")
        self._ids = array("I")
        self._lengths = array("I")
        self._logprobs = array("d")
        self._confidences = array("d")
        self._tops: dict[int, list[Alternative]] = {}

    @property
    def held_bytes(self) -> int:
        """Memory it takes."""
        columns = (self.ends, self._ids, self._lengths, self._logprobs, self._confidences)
        alternatives = sum(
            getsizeof(top) + sum(getsizeof(each) + getsizeof(each.text) for each in top)
            for top in self._tops.values()
        )
        return sum(map(getsizeof, columns)) + getsizeof(self._tops) + alternatives

    def between(self, start: int, stop: int) -> Iterator[tuple[Token, int]]:
        """Tokens whose text ends in (`start`, `stop`], with their ends."""
        first, last = bisect_right(self.ends, start), bisect_right(self.ends, stop)
        return ((self._token(index), self.ends[index]) for index in range(first, last))

    def extend(self, tokens: Sequence[Token], ends: list[int]) -> None:
        before = len(self._ids)
        self._ids.fromlist([token.id for token in tokens])
        # Neither can be larger than the text is long.
        self._lengths.fromlist([token.n for token in tokens])
        self.ends.fromlist(ends)
        _extend(self._logprobs, before, [token.logprob for token in tokens])
        _extend(self._confidences, before, [token.confidence for token in tokens])
        for place, token in enumerate(tokens, before):
            if token.top is not None:
                self._tops[place] = token.top

    def _token(self, index: int) -> Token:
        return Token(
            self._ids[index],
            self._lengths[index],
            _value(self._logprobs, index),
            _value(self._confidences, index),
            self._tops.get(index),
        )


def _extend(column: array[float], before: int, values: list[float | None]) -> None:
    """Appends to a column of `before` tokens; it stays empty until one token has a value."""
    if column or values.count(None) < len(values):
        column.extend([_UNKNOWN] * (before - len(column)))
        column.extend(_UNKNOWN if value is None else value for value in values)


def _value(column: array[float], index: int) -> float | None:
    value = column[index] if column else _UNKNOWN
    return None if isnan(value) else value


def _ends(tokens: Sequence[Token], start: int, end: int) -> list[int]:
    """Where the text of each token ends; `tokens` are those of the text from `start` to `end`, or
    none at all.

    A token without text of its own (its bytes are incomplete) ends with the code point that it
    helps to complete. Raises LedgerError where they do not cover their text.
    """
    reached = start
    ends: list[int] = []
    for token in tokens:
        reached += token.n
        ends.append(reached if token.n else reached + 1)
    if tokens and reached != end:
        raise LedgerError("tokens_cover_text", f"the tokens end at {reached}, their text at {end}")
    return ends


class Marks:
    """The tokens of one part: those of committed text, then those of the tail.

    A source may leave tokens out; where it gives them, they cover their text exactly. The last
    committed ones, fewer than `BATCH`, are not packed yet.
    """

    __slots__ = ("_committed", "_recent", "_tail")

    def __init__(self) -> None:
        self._committed = _PackedRun()
        self._recent = _Run([], [])
        self._tail = _NO_TOKENS

    @property
    def held_bytes(self) -> int:
        """Memory that the tokens of committed text take; those of a tail are few and gone soon."""
        recent = self._recent
        held = (recent.tokens, recent.ends, *recent.tokens, *recent.ends)
        return self._committed.held_bytes + sum(map(getsizeof, held))

    def between(self, start: int, stop: int) -> list[tuple[Token, int]]:
        """Tokens whose text ends in (`start`, `stop`], in order, each with the place where it ends.

        A token's text is its `n` code points before that place.
        """
        return [
            *self._committed.between(start, stop),
            *self._recent.between(start, stop),
            *self._tail.between(start, stop),
        ]

    def confidence(self, start: int, stop: int) -> float | None:
        """Product over the tail's tokens whose text ends in (`start`, `stop`]; None where there
        are none or one has no confidence.
        """
        chances = [token.confidence for token, _ in self._tail.between(start, stop)]
        known = [chance for chance in chances if chance is not None]
        return prod(known) if known and len(known) == len(chances) else None

    def draft(self, tokens: Sequence[Token], start: int, end: int) -> None:
        """The tail reaches from `start` to `end`, and these are its tokens."""
        if not tokens:
            self._tail = _NO_TOKENS
            return
        self._tail = _Run(list(tokens), _ends(tokens, start, end))

    def commit(self, tokens: Sequence[Token], start: int, end: int, standing: int) -> None:
        """Text from `start` to `end` is committed, and these are its tokens; of the earlier tail
        all up to `standing` stands. Raises LedgerError, and nothing has changed.
        """
        if tokens:
            self._append(tokens, _ends(tokens, start, end))
        if self._tail.tokens:
            kept = list(self._tail.between(end, standing))
            self._tail = _Run([token for token, _ in kept], [end for _, end in kept])

    def drop_tail(self) -> None:
        self._tail = _NO_TOKENS

    def forget(self) -> None:
        """No token is known any more: for text whose tokens nobody will ask for."""
        self._committed = _PackedRun()
        self._recent = _Run([], [])
        self._tail = _NO_TOKENS

    def _append(self, tokens: Sequence[Token], ends: list[int]) -> None:
        _require_fit(tokens)
        recent = self._recent
        recent.tokens += tokens
        recent.ends += ends
        if len(recent.tokens) >= BATCH:
            self._committed.extend(recent.tokens, recent.ends)
            self._recent = _Run([], [])


def _require_fit(tokens: Sequence[Token]) -> None:
    for token in tokens:
        if not 0 <= token.id < _ID_LIMIT or token.n < 0:
            raise LedgerError(
                "tokens_fit", "a token's id is not in 32 bits, or its length negative"
            )


_NO_TOKENS = _Run([], [])
"""Runs of the tail are replaced, never changed, so this one may be shared."""
