"""How often and how fast an interrupted stream is resumed."""

from __future__ import annotations

import random

import msgspec


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """Bounded exponential backoff with full jitter.

    `attempts` counts reconnections in a row that brought no new committed text: a stream that
    progresses may be interrupted any number of times. 0 switches resuming off.
    """

    attempts: int = 8
    first_s: float = 0.25
    longest_s: float = 10.0

    def delay(self, attempt: int, retry_after: float | None = None) -> float:
        """Seconds before reconnection number `attempt` (from 1). The first follows at once, unless
        the server asked for more: most interruptions are over when they are noticed.
        """
        if attempt <= 1:
            return retry_after or 0.0
        ceiling = min(self.first_s * 2 ** (attempt - 2), self.longest_s)
        return max(random.uniform(0, ceiling), min(retry_after or 0.0, self.longest_s))
