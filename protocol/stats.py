"""What one reader saw of a stream, counted along (SPEC section 4.9)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.events import Stats

if TYPE_CHECKING:
    from protocol.events import Usage


class AttachmentStats:
    """Lengths in the reader's unit; times on the clock `started_at` was read from, in seconds."""

    def __init__(self, started_at: float) -> None:
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

    def erased(self, n: int) -> None:
        self.erased_units += n
        self._retractions += 1

    def committed(self, n: int, now: float) -> None:
        self.final_units += n
        self.committed_units += n
        if self._first_committed is None:
            self._first_committed = now
            if self._first_visible is None:
                self._first_visible = now

    def shown(self, tail: int, now: float) -> None:
        """The tail is now `tail` long."""
        if tail > self._longest_tail:
            self._longest_tail = tail
        if self._first_visible is None:
            self._first_visible = now

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

    def _since_start(self, moment: float | None) -> float | None:
        return None if moment is None else round((moment - self._started_at) * 1000, 3)
