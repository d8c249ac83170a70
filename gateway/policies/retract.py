"""`retract`: tentative text at once; committed or taken back on the verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol import units
from protocol.policy import View

if TYPE_CHECKING:
    from protocol.events import OffsetUnit
    from protocol.ledger import PartLedger


class RetractPart:
    """`max_tail` bounds, in the reader's unit, how much may be on show without being committed."""

    def __init__(self, max_tail: int | None, unit: OffsetUnit) -> None:
        self._max_tail = max_tail
        self._unit = unit

    def view(self, part: PartLedger, now: float) -> View:
        committed = part.committed_length
        if self._max_tail is None:
            return View(committed, part.total_length)
        tail = part.tail[: self._max_tail]  # no unit is larger than a code point
        while units.length(tail, self._unit) > self._max_tail:
            tail = tail[:-1]
        return View(committed, committed + len(tail))
