"""How long something took, counted by size: what a histogram is drawn from."""

from __future__ import annotations

from bisect import bisect_left

BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds, inclusive, in seconds; what is longer has a place of its own behind them."""


class Durations:
    """Any number of durations in the memory of a few. One `add` costs some hundred nanoseconds."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        """How many were over the bound before and at most this one; the last: over all bounds."""
        self.total_s = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.total_s += seconds
