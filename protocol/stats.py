"""What readers saw of streams, counted along: one of them (SPEC section 4.9), and many together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.durations import Durations
from protocol.events import Stats

if TYPE_CHECKING:
    from protocol.events import Usage


class Tally:
    """What many attachments have in common, added up while it happens: one for each kind of policy.

    Lengths are in each reader's own unit.
    """

    def __init__(self) -> None:
        self.first_visible = Durations()
        """Since the request, for the first attachment of each stream."""
        self.first_committed = Durations()
        self.gaps = Durations()
        """From one commit to the next of the same attachment."""
        self.lags = Durations()
        """From the verification of text to the commit that told of it."""
        self.changes = 0
        """Changes of a stream's text that an attachment had to look at."""
        self.deliveries = 0
        """Times that it had something to say then. Fewer than changes: they were merged."""
        self.committed_units = 0
        self.erased_units = 0
        self.retractions: dict[str, int] = {}
        """By cause."""
        self.failures: dict[str, int] = {}
        """Attachments that ended before their stream did, by code."""


class AttachmentStats:
    """Lengths in the reader's unit; times on the clock `started_at` was read from, in seconds."""

    def __init__(
        self, started_at: float, tally: Tally | None = None, *, is_first: bool = True
    ) -> None:
        """`tally`: what this one is added to. `is_first`: whether it is its stream's first reader,
        whose first text shows how long a user waited.
        """
        self._tally = Tally() if tally is None else tally
        self._is_first = is_first
        self.last_committed: float | None = None
        """When something was committed last."""
        self._started_at = started_at
        self._first_visible: float | None = None
        self._first_committed: float | None = None
        self.erased_units = 0
        self.committed_units = 0
        """Told committed by this attachment: without what lay before its cursor."""
        self._retractions = 0
        self._longest_tail = 0
        self.final_units = 0
        """Committed text of all parts up to the reader's cursor."""

    def erased(self, n: int, cause: str) -> None:
        self.erased_units += n
        self._retractions += 1
        tally = self._tally
        tally.erased_units += n
        tally.retractions[cause] = tally.retractions.get(cause, 0) + 1

    def committed(self, n: int, now: float) -> None:
        self.final_units += n
        self.committed_units += n
        tally = self._tally
        tally.committed_units += n
        if self.last_committed is not None:
            tally.gaps.add(now - self.last_committed)
        else:
            self._first_committed = now
            if self._first_visible is None:
                self._seen(now)
            if self._is_first:
                tally.first_committed.add(now - self._started_at)
        self.last_committed = now

    def shown(self, tail: int, now: float) -> None:
        """The tail is now `tail` long."""
        if tail > self._longest_tail:
            self._longest_tail = tail
        if self._first_visible is None:
            self._seen(now)

    def report(self, usage: Usage, steps: int) -> Stats:
        return Stats(
            ttfv_ms=self._since_start(self._first_visible),
            ttc_ms=self._since_start(self._first_committed),
            erased_units=self.erased_units,
            normalized_erasure=self.erased_units / max(1, self.final_units),
            retractions=self._retractions,
            longest_tail=self._longest_tail,
            acceptance_rate=(
                usage.accepted_tokens / usage.drafted_tokens if usage.drafted_tokens else None
            ),
            tokens_per_step=usage.completion_tokens / steps if steps else None,
        )

    def _seen(self, now: float) -> None:
        """There is text on show, for the first time."""
        self._first_visible = now
        if self._is_first:
            self._tally.first_visible.add(now - self._started_at)

    def _since_start(self, moment: float | None) -> float | None:
        return None if moment is None else round((moment - self._started_at) * 1000, 3)
