"""How many tokens are worth drafting, from what a step was measured to cost and what drafts were
worth.

Verifying one more row is nearly free while a step is bound by reading weights, and is not any more
in a large batch. So the draft rows of a step are chosen together: they are worth their chance of
acceptance and cost what the measured step time grows by. No rows at all is one of the choices.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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

    @property
    def points(self) -> list[tuple[int, float]]:
        return list(zip(self._rows, self._seconds, strict=True))

    def __call__(self, rows: int) -> float:
        at = bisect_left(self._rows, rows)
        if at == 0:
            return self._seconds[0]
        if at == len(self._rows):
            return self._seconds[-1] * rows / self._rows[-1]
        low, high = self._rows[at - 1], self._rows[at]
        share = (rows - low) / (high - low)
        return self._seconds[at - 1] * (1 - share) + self._seconds[at] * share


Seconds: TypeAlias = "Callable[[int], float]"
"""What something takes, by its size."""


class _Row(NamedTuple):
    worth: float
    sequence: int
    place: int


def worthwhile(proposals: list[Proposal], rows: int, cost: Seconds) -> list[int]:
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
    acceptance: float, limit: int, rows: int, verify: Seconds, draft: Seconds
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


OUTCOME_FADE = 0.98
"""Weight of what is known of plans when one more is known."""


class DraftPlan(NamedTuple):
    asked: list[int]
    """The sequences to draft for."""
    floor: float
    """The chance of acceptance under which one more token of a draft takes more time, to draft and
    to verify, than it saves.
    """
    gain: float = 0.0
    """Tokens that are thought to be accepted."""
    seconds: float = 0.0
    """What drafting and verifying them is thought to take."""


class PlanOutcome:
    """What came of plans, beside what they said.

    Chances measured on drafts that were verified are those of the surest ones, which are all that
    is verified; of what is planned, part is cut. So plans promise too much and cost too much, and
    by how much shows only afterwards.
    """

    def __init__(self) -> None:
        self._gain = self._planned_gain = 1.0
        self._seconds = self._planned_seconds = 0.0

    @property
    def gain(self) -> float:
        """Accepted tokens for one that was planned."""
        return self._gain / self._planned_gain

    @property
    def seconds(self) -> float:
        """Seconds of drafting and verifying for one that was planned."""
        return self._seconds / self._planned_seconds if self._planned_seconds else 1.0

    def observe(self, plan: DraftPlan, gain: float, seconds: float) -> None:
        """A plan brought so many tokens and took so long."""
        self._gain = OUTCOME_FADE * self._gain + gain
        self._planned_gain = OUTCOME_FADE * self._planned_gain + plan.gain
        self._seconds = OUTCOME_FADE * self._seconds + seconds
        self._planned_seconds = OUTCOME_FADE * self._planned_seconds + plan.seconds


def planned(
    chances: Sequence[float],
    limit: int,
    rows: int,
    step: Seconds,
    draft: Seconds,
    outcome: PlanOutcome,
) -> DraftPlan:
    """For which sequences a head should draft, so that the most tokens per second are expected.

    `chances`: by sequence, measured chance that one more of its drafted tokens is accepted.
    `rows`: what the step has anyway. `step`: its seconds by rows. `draft`: seconds of a pass by
    sequences. `outcome`: of plans for steps like this one. The surest sequences come first;
    drafting for none, or not far, is a choice too.
    """
    order = sorted(range(len(chances)), key=lambda n: -chances[n])
    most = len(order)
    lengths = np.arange(1, limit + 1)
    counts = sorted({most, *(2**n for n in range(most.bit_length()) if 2**n <= most)})
    powers = np.array([chances[n] for n in order])[:, None] ** lengths
    gains = np.cumsum(np.cumsum(powers, axis=1), axis=0)
    plain = step(rows)
    best, found = most / plain, DraftPlan([], 1.0)
    for count in counts:
        drafting = draft(count)
        for length in range(1, limit + 1):
            gain = float(gains[count - 1, length - 1])
            verifying = step(rows + count * length) - plain
            seconds = verifying + length * drafting
            rate = (most + outcome.gain * gain) / (plain + outcome.seconds * seconds)
            if rate > best:
                best = rate
                further = (drafting + verifying / length) / count
                found = DraftPlan(order[:count], min(further * rate, 1.0), gain, seconds)
    return found
