"""How long the queue is, where it is going, and how long one more would wait in it."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

WINDOW_S = 120.0
"""What trend and wait are taken from; a scrape every 15 s leaves eight looks in it."""
MOST_LOOKS = 256
"""Of scrapers that come more often only the latest looks count."""


class Look(NamedTuple):
    at: float
    """Seconds of any steady clock."""
    waiting: int
    ended: int
    """Streams that have ended since the start."""


class QueueWatch:
    """Is shown the queue now and then, by whoever asks: it has no timer of its own."""

    def __init__(self, began_at: float) -> None:
        self._looks: deque[Look] = deque([Look(began_at, 0, 0)], maxlen=MOST_LOOKS)
        self._first = self._looks[0]

    def look(self, at: float, waiting: int, ended: int) -> None:
        looks = self._looks
        looks.append(Look(at, waiting, ended))
        # One look from before the window stays: it is where the window begins.
        while len(looks) > 2 and looks[1].at <= at - WINDOW_S:
            looks.popleft()

    @property
    def growth(self) -> float:
        """Streams per second by which the queue grows (below 0: shrinks)."""
        return self._per_second(self._looks[-1].waiting - self._looks[0].waiting, self._looks[0])

    @property
    def wait_s(self) -> float | None:
        """How long a stream that came now would wait, if streams go on ending as they did.

        None where none has ended yet, so that nobody can tell.
        """
        now = self._looks[-1]
        if now.waiting == 0:
            return 0.0
        # In a window without an end the average since the start has to do.
        recent = self._per_second(now.ended - self._looks[0].ended, self._looks[0])
        rate = recent or self._per_second(now.ended, self._first)
        return now.waiting / rate if rate else None

    def _per_second(self, change: int, since: Look) -> float:
        elapsed = self._looks[-1].at - since.at
        return change / elapsed if elapsed > 0 else 0.0
