"""Where the time of a step goes, and a log line when one took much longer than it should."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)

SLOW_FACTOR = 4.0
"""A step this many times as long as expected is slow: prefill over a long context, which the
profile knows nothing of, stays below.
"""
SLOW_FLOOR_S = 0.05
"""What a reader would not notice is not slow."""
QUIET_S = 10.0
"""At most one line in so many seconds; the steps in between are counted in the next one."""


class StepClock:
    """Splits each step's time into named parts. Used by one thread."""

    def __init__(
        self,
        expected: Callable[[int], float],
        *,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`expected(rows)`: seconds that a step's forward pass was measured to take."""
        self._expected = expected
        self._now = now
        self._begun = self._marked = 0.0
        self._parts: dict[str, float] = {}
        self._last_line = float("-inf")
        self.slow = 0
        """Slow steps so far."""
        self._unsaid = 0

    def begin(self) -> None:
        self._begun = self._marked = self._now()
        self._parts.clear()

    def mark(self, part: str) -> None:
        """The time since the last mark went into `part`."""
        now = self._now()
        self._parts[part] = self._parts.get(part, 0.0) + now - self._marked
        self._marked = now

    def seconds(self, *parts: str) -> float:
        """What these parts of the step took so far."""
        return sum(self._parts.get(part, 0.0) for part in parts)

    def end(self, rows: int, forward: Callable[[], Mapping[str, float]]) -> None:
        """The step is over. `forward()`: what its forward pass consisted of, in seconds."""
        total = self._marked - self._begun
        expected = self._expected(rows)
        if total < max(SLOW_FLOOR_S, SLOW_FACTOR * expected):
            return
        self.slow += 1
        self._unsaid += 1
        if self._marked - self._last_line < QUIET_S:
            return
        others = f" ({self._unsaid} slow steps since the last line)" if self._unsaid > 1 else ""
        log.warning(
            "a step of %d rows took %.0f ms instead of about %.0f: %s; forward: %s%s",
            rows,
            1000 * total,
            1000 * expected,
            _in_ms(self._parts),
            _in_ms(forward()) or "not known",
            others,
        )
        self._last_line = self._marked
        self._unsaid = 0


def _in_ms(parts: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {1000 * seconds:.0f}" for name, seconds in parts.items())
