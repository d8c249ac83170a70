"""What a piece of work costs by its size, measured at start-up and corrected by real work.

A machine that others use too is slower at one time than at another, for work of every size. So two
things are told apart: its pace, which follows the last few dozen measurements, and what one size
costs beside another, which changes slowly. A size that has not been tried for long stays comparable
in this way with one that is tried all the time.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import TYPE_CHECKING

from engine.scheduling.draft_length import StepCost

if TYPE_CHECKING:
    from collections.abc import Iterable

GREEDY_ROW_S, NOISY_ROW_S = 0.00005, 0.0003
"""Assumed time to choose a token from a row of logits, without noise and with, until measured."""
AROUND = ((1, 0.0003), (32, 0.003))
"""Assumed seconds of what is done around a step's rows, by sequences, until it is measured."""
PACE_GAIN = 0.1
SHAPE_GAIN = 0.02
"""Share of a surprise that goes into the pace, and into the cost of its size alone."""
BELIEVED = 0.25
"""Largest surprise believed at once, as a logarithm: one stalled measurement says little, however
long it took; many that agree are soon believed.
"""
REFRESH = 16
"""Measurements between two corrections of the figures by size; the pace counts at once."""


class Pace:
    """How slow the machine is, compared with start-up."""

    def __init__(self) -> None:
        self.log = 0.0

    @property
    def factor(self) -> float:
        return math.exp(self.log)


class RunningCost:
    """Seconds by size, as `StepCost`, kept right by `observe`. Used by one thread."""

    def __init__(
        self, points: Iterable[tuple[int, float]], pace: Pace | None = None, *, leads: bool = True
    ) -> None:
        """`points` (size, seconds), at least one, by growing size: what was measured at start-up,
        or is assumed. `pace`: shared with other costs; only one that `leads` changes it.
        """
        measured = list(points)
        self._sizes = [size for size, _ in measured]
        self._seconds = [seconds for _, seconds in measured]
        self._shape = [0.0] * len(measured)
        """Logarithm of each point's correction."""
        self._pace = Pace() if pace is None else pace
        self._leads = leads
        self._cost = StepCost(measured)
        self._since = 0

    def __call__(self, size: int) -> float:
        return self._cost(size) * self._pace.factor

    def observe(self, size: int, seconds: float) -> None:
        """Work of this size took so long."""
        expected = self(size)
        if seconds <= 0.0 or expected <= 0.0:
            return
        surprise = max(-BELIEVED, min(BELIEVED, math.log(seconds / expected)))
        if self._leads:
            self._pace.log += PACE_GAIN * surprise
        at = max(bisect_right(self._sizes, size) - 1, 0)
        after = min(at + 1, len(self._sizes) - 1)
        span = self._sizes[after] - self._sizes[at]
        share = min((size - self._sizes[at]) / span, 1.0) if span and size > self._sizes[at] else 0
        self._shape[at] += SHAPE_GAIN * (1 - share) * surprise
        self._shape[after] += SHAPE_GAIN * share * surprise
        self._since += 1
        if self._since >= REFRESH:
            self._since = 0
            self._cost = StepCost(
                [
                    (size, seconds * math.exp(shape))
                    for size, seconds, shape in zip(
                        self._sizes, self._seconds, self._shape, strict=True
                    )
                ]
            )


class StepSeconds:
    """Seconds of the step being planned, by its rows.

    Choosing a token with noise takes several times as long as without; so rows are told apart by
    the share of the step's sequences that have noise.
    """

    def __init__(self, profile: StepCost) -> None:
        """`profile`: of forward passes, at start-up."""
        self.pause = 0.0
        """What a demonstration adds to every step. Not measured: it has no pace."""
        self.pace = Pace()
        self._forward = RunningCost(profile.points, self.pace)
        self._greedy = RunningCost([(1, GREEDY_ROW_S)], self.pace, leads=False)
        self._noisy = RunningCost([(1, NOISY_ROW_S)], self.pace, leads=False)
        self._around = RunningCost(AROUND)
        self._base = self._row = self._share = 0.0

    def plan(self, sequences: int, noisy: int) -> None:
        """A step with so many sequences is being planned, `noisy` of them with noise."""
        self._share = noisy / sequences
        self._row = self._share * self._noisy(1) + (1 - self._share) * self._greedy(1)
        self._base = self._around(sequences)

    def __call__(self, rows: int) -> float:
        return self._forward(rows) + self._row * rows + self._base + self.pause

    def observe(
        self, *, sequences: int, rows: int, forward: float, judged: float, around: float
    ) -> None:
        """The step planned last took these seconds: to compute its rows, to choose tokens from
        them, and for all else but drafting.
        """
        self._forward.observe(rows, forward)
        self._around.observe(sequences, around)
        # A mixed step does not say which of the two took longer than thought.
        if self._share in (0.0, 1.0):
            (self._noisy if self._share else self._greedy).observe(1, judged / rows)
