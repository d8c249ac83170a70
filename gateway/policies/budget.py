"""How much of a tail a reader may see, if no more than a share of what stays may be taken back.

Let B be the budget, C the units committed to the reader, E the units taken back from it, L the
longest tail it was ever shown. What is promised, whatever the drafter claims and does:

    E ≤ B·C + L at every moment, and nothing is shown that is not expected to keep E ≤ B·C, but
    what a reader is shown first, before anything is committed: that is expected to keep E within
    the budget of an answer of `ADVANCE_UNITS`.

Proof of the bound. Text is added to the tail only while risk ≤ AIM·B·C − E, and risk, a sum of
chances times lengths, is never negative; so at every addition E ≤ B·C. Until the next addition
nothing can be taken back but the tail on show, which is at most L, and C does not fall. (Before the
first addition E = 0, and the advance is for a reader of whom E = C = 0.) With B → 0 the right side
of the condition falls below any text's risk: a claim of certainty counts as measured, hence never
as 0, and nothing is shown.

The advance is for sources that draft before they have said anything: ahead of a slow engine the
wait for the first word is the longest, and with no committed text there would be no budget for it.

The expectation rests on measurement, not on the drafter's word. Every drafted token is watched
in the ledger, whether it was shown or not, and what became of it is counted by the chance of
staying that was claimed for it; the claim, taken as too good by `DOUBT`, only fills in where little
was seen. So a stream begins with the safest text alone, confidence that is claimed wrongly costs at
most the little that an unproven claim may spend, and drafts that turn out right are let through
more and more. Of all drafts whose sum of losses is the budget's those most likely to stay are the
longest text, so the account is not spent first come, first served: the claims are let through down
to a level at which the drafts seen so far would have cost what may be spent.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple

from protocol import units
from protocol.text import common_prefix_length

if TYPE_CHECKING:
    from protocol.events import OffsetUnit
    from protocol.ledger import PartLedger
    from protocol.policy import Told

LEVELS = (
    *(0.003, 0.01, 0.02, 0.03, 0.04, 0.055, 0.07, 0.09, 0.11, 0.14, 0.17, 0.21, 0.26, 0.32),
    *(0.39, 0.47, 0.56, 0.66, 0.77, 0.88, 1.0),
)
"""Claimed chances of being taken back, upper ends: finer where a budget decides."""
DOUBT = 1.5
"""A claim counts as so many times the loss its level stands for, until it is measured."""
CLAIM_UNITS = 60.0
"""How many units of a level must be seen until they weigh as much as its claim: a dozen tokens."""
AIM = 0.85
"""The part of the budget that is aimed for; the rest is for what chance adds."""
REPAY_UNITS = 400.0
"""Over so many units what is left of the budget, or was overspent, is spent or saved up again. With
half of it, ahead of a slow upstream, a fifth more was taken back for 4 % more lead."""
ADVANCE_UNITS = 100.0
"""A sentence or two: most answers become longer. With more, a longer one is without drafts
for half of its length; with less, most begin with none (benchmarks/upstreams)."""
MOST_STAKE = 3.0
"""The tail on show is at most so many times what is left of the budget, however safe it seems: one
mishap should not cost a short answer its budget."""
MEMORY_UNITS = 3000.0
"""Committed text after which what was seen counts half, so that a text that changes its ways is
followed."""


class _Piece(NamedTuple):
    """A token of the tail, or a tail without tokens."""

    start: int
    end: int
    """Code points in the part."""
    units: int
    level: int
    """Of the claim that all text up to `end` stays."""


class Budget:
    """What was seen of a stream's drafts, and how much of the next a reader may see.

    The account itself, units committed and taken back, is each reader's own and comes with `told`;
    so one object serves all readers with the same budget and unit. It lives through parts, for as
    long as one of them reads: a first reader, or one who comes back to nobody, begins safe.
    """

    def __init__(self, budget: float, unit: OffsetUnit) -> None:
        """`budget`: units taken back per committed unit, over 0. `unit`: the reader's."""
        self._aim = AIM * budget
        self._unit = unit
        self.limit = 0
        """Up to where the part weighed last may be shown to the reader it was weighed for, in code
        points."""
        self._part: int = -1
        self._base: int = 0
        """Where the tail that is watched begins in its part, in code points."""
        self._tail: str = ""
        self._pieces: list[_Piece] = []
        self._seen = [0.0] * len(LEVELS)
        """Units whose fate is known, by level; ..."""
        self._lost = [0.0] * len(LEVELS)
        """... those of them that did not stay; ..."""
        self._among = 0.0
        """... and the committed units among which they were seen."""

    def weigh(self, part: PartLedger, told: Told) -> None:
        """Set `limit` for `part` as it is now: at least its committed text."""
        self._watch(part)
        fresh = units.length(part.committed_text(told.at), self._unit)
        committed = told.committed_units + fresh
        if part.committed_length or part.index or told.erased_units:
            left = self._aim * committed - told.erased_units
            deepest = self._deepest(left)
        else:
            left = self._aim * ADVANCE_UNITS
            deepest = len(LEVELS) - 1
        stake, risk, self.limit = 0, 0.0, part.committed_length
        for piece in self._pieces:
            stake += piece.units
            risk += piece.units * self._loss(piece.level)
            affordable = piece.level <= deepest and max(risk, stake / MOST_STAKE) <= left
            if piece.end > told.shown and not affordable:
                break
            self.limit = piece.end

    def _deepest(self, left: float) -> int:
        """The last level that may be shown; -1: none. `left`: units of the budget not spent yet."""
        rate = self._aim + left / REPAY_UNITS
        affordable = rate * self._among
        drafted = self._seen.copy()
        for piece in self._pieces:
            drafted[piece.level] += piece.units
        cost = 0.0
        for level, there in enumerate(drafted):
            cost += there * self._loss(level)
            if cost > affordable:
                return level - 1
        return len(LEVELS) - 1

    def _loss(self, level: int) -> float:
        """Expected share of a level's text that does not stay."""
        claimed = min(1.0, DOUBT * LEVELS[level])
        return (self._lost[level] + CLAIM_UNITS * claimed) / (self._seen[level] + CLAIM_UNITS)

    def _watch(self, part: PartLedger) -> None:
        """Count what became of the tail seen last, and take in the present one."""
        if part.index != self._part:
            self._part, self._base, self._tail = part.index, 0, ""
            self._pieces = []
        if part.committed_length == self._base and part.tail == self._tail:
            return
        now_there = part.text(self._base, min(self._base + len(self._tail), part.total_length))
        standing = self._base + common_prefix_length(self._tail, now_there)
        for piece in self._pieces:
            if piece.end > standing:
                gone = self._tail[max(piece.start, standing) - self._base : piece.end - self._base]
                self._judge(piece, units.length(gone, self._unit))
            elif piece.end <= part.committed_length:
                self._judge(piece, 0)
        self._among += units.length(part.committed_text(self._base), self._unit)
        if self._among > MEMORY_UNITS:
            self._among /= 2
            self._seen = [seen / 2 for seen in self._seen]
            self._lost = [lost / 2 for lost in self._lost]
        self._base, self._tail = part.committed_length, part.tail
        self._pieces = self._cut(part)

    def _judge(self, piece: _Piece, lost: int) -> None:
        self._seen[piece.level] += piece.units
        self._lost[piece.level] += lost

    def _cut(self, part: PartLedger) -> list[_Piece]:
        """The tail by its tokens; what no token accounts for is one piece of which nothing is
        known, and may as well be wrong.
        """
        pieces: list[_Piece] = []
        chance, start = 1.0, part.committed_length
        for token, end in part.tokens(part.committed_length, part.total_length):
            chance *= 0.0 if token.confidence is None else token.confidence
            pieces.append(self._piece(part, start, end, chance))
            start = end
        if start < part.total_length:
            pieces.append(self._piece(part, start, part.total_length, 0.0))
        return pieces

    def _piece(self, part: PartLedger, start: int, end: int, chance: float) -> _Piece:
        level = min(bisect_left(LEVELS, 1.0 - chance), len(LEVELS) - 1)
        return _Piece(start, end, units.length(part.text(start, end), self._unit), level)
