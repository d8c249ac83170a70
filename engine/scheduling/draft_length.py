"""How many tokens are worth drafting, from what a step was measured to cost and what drafts were
worth.

Verifying one more row is nearly free while a step is bound by reading weights, and is not any more
in a large batch. So the draft rows of a step are chosen together: they are worth their chance of
acceptance and cost what the measured step time grows by. No rows at all is one of the choices.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from engine.drafters.base import Proposal


class StepCost:
    """Seconds a step takes by its rows: straight lines between measured points."""

    def __init__(self, points: list[tuple[int, float]]) -> None:
        """`points` (rows, seconds), at least one, by growing rows. Falling times are noise:
        flattened.
        """
        self._rows = [rows for rows, _ in points]
        self._seconds: list[float] = []
        for _, seconds in points:
            floor = self._seconds[-1] if self._seconds else 0.0
            self._seconds.append(max(seconds, floor))

    def slowed(self, seconds: float) -> StepCost:
        """The same with so much more per step, whatever its rows."""
        points = zip(self._rows, self._seconds, strict=True)
        return StepCost([(rows, cost + seconds) for rows, cost in points])

    def __call__(self, rows: int) -> float:
        at = bisect_left(self._rows, rows)
        if at == 0:
            return self._seconds[0]
        if at == len(self._rows):
            return self._seconds[-1] * rows / self._rows[-1]
        low, high = self._rows[at - 1], self._rows[at]
        share = (rows - low) / (high - low)
        return self._seconds[at - 1] * (1 - share) + self._seconds[at] * share


class _Row(NamedTuple):
    worth: float
    sequence: int
    place: int


def worthwhile(proposals: list[Proposal], rows: int, cost: StepCost) -> list[int]:
    """How many tokens of each proposal to verify, in a step that has `rows` rows anyway.

    Maximises expected tokens per second; a proposal's confidences are the chances that all of it
    up to there is accepted, so the best rows of a step are always prefixes of its proposals.
    """
    candidates = sorted(
        (
            _Row(-worth, number, place)
            for number, proposal in enumerate(proposals)
            for place, worth in enumerate(proposal.confidence)
        ),
        key=lambda row: (row.worth, row.place, row.sequence),
    )
    expected = float(len(proposals))
    best, best_rate = 0, expected / cost(rows)
    for count, row in enumerate(candidates, start=1):
        expected -= row.worth
        rate = expected / cost(rows + count)
        if rate > best_rate:
            best, best_rate = count, rate
    kept = [0] * len(proposals)
    for row in candidates[:best]:
        kept[row.sequence] += 1
    return kept


def drafting_limit(
    acceptance: float, limit: int, rows: int, verify: StepCost, draft: StepCost
) -> int:
    """How far a drafter that costs a forward pass per token should go, `rows` sequences at once.

    `acceptance`: measured chance that one more drafted token is accepted.
    """
    best, best_rate = 0, 1.0 / verify(rows)
    expected, chance = 1.0, 1.0
    for length in range(1, limit + 1):
        chance *= acceptance
        expected += chance
        rate = expected / (verify(rows * (length + 1)) + length * draft(rows))
        if rate > best_rate:
            best, best_rate = length, rate
    return best


def least_chance(
    acceptance: float, limit: int, sequences: int, verify: StepCost, draft: StepCost
) -> float:
    """The chance of acceptance under which one more drafted token of one sequence takes more time,
    to draft and to verify, than it saves; 1 where drafting does not pay at all.

    `acceptance`: measured chance that one more drafted token is accepted. `draft`: seconds per
    drafted token, by sequences.
    """
    length = drafting_limit(acceptance, limit, sequences, verify, draft)
    if length == 0:
        return 1.0
    expected = sum(acceptance**n for n in range(length + 1))
    drafting = draft(sequences)
    step = verify(sequences * (length + 1)) + length * drafting
    rows = (verify(sequences * (length + 1)) - verify(sequences)) / length
    # Each sequence gets `expected` tokens a step; its share of one more token's time must be less.
    return min((drafting + rows) * expected / step, 1.0)
