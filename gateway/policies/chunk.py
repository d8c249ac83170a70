"""`chunk`: text leaves in whole tokens, words, clauses, sentences, lines or paragraphs."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from gateway.policies.boundaries import FINDERS
from protocol.policy import View

if TYPE_CHECKING:
    from protocol.ledger import PartLedger
    from protocol.requests import Chunk

EAGER_SCAN = 1024
"""Withheld text up to so many code points is looked through whenever it grows; ..."""
SCAN_GROWTH = 8
"""... longer text only when it has grown by one part in so many, so that a text without a single
boundary costs linear, not quadratic time."""
LONGEST_DELAY_S = 24 * 60 * 60.0
"""No stream lives so long; a number of milliseconds may have more digits than a float holds."""


class ChunkPart:
    """The boundaries of one part, found step by step: never again in front of the last one."""

    def __init__(self, spec: Chunk) -> None:
        self._find = FINDERS[spec.unit](spec.locale)
        self._tail = spec.tail
        delay_ms = spec.max_delay_ms
        self._max_delay = None if delay_ms is None else min(delay_ms, LONGEST_DELAY_S * 1000) / 1000
        self._boundary = 0
        self._delivered = 0
        self._scanned = 0
        self._arrivals: deque[tuple[float, int]] = deque()
        """(time, committed length) of each growth that is not delivered yet; only with a delay."""

    def view(self, part: PartLedger, now: float) -> View:
        self._scan(part)
        wake_at = self._overdue(part, now)
        shown = part.total_length if self._tail else self._delivered
        return View(self._delivered, shown, wake_at)

    def _scan(self, part: PartLedger) -> None:
        committed = part.committed_length
        withheld = self._scanned - self._boundary
        eager = part.complete or withheld <= EAGER_SCAN
        if committed < self._scanned + (1 if eager else withheld // SCAN_GROWTH):
            return
        self._scanned = committed
        self._boundary += self._find(part.committed_text(self._boundary))
        self._delivered = max(self._delivered, self._boundary)

    def _overdue(self, part: PartLedger, now: float) -> float | None:
        """Deliver everything once the oldest withheld text has waited long enough; else say when.

        The boundary stays where it was: a sentence that was cut by the clock still ends where it
        ends.
        """
        if self._max_delay is None:
            return None
        committed, arrivals = part.committed_length, self._arrivals
        if committed > (arrivals[-1][1] if arrivals else self._delivered):
            arrivals.append((now, committed))
        while arrivals and arrivals[0][1] <= self._delivered:
            arrivals.popleft()
        if arrivals and now >= arrivals[0][0] + self._max_delay:
            self._delivered = committed
            arrivals.clear()
        return arrivals[0][0] + self._max_delay if arrivals else None
