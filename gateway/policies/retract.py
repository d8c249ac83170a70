"""`retract`: tentative text at once; committed or taken back on the verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol import units
from protocol.policy import View

if TYPE_CHECKING:
    from gateway.policies.budget import Budget
    from protocol.events import OffsetUnit
    from protocol.ledger import PartLedger


class RetractPart:
    """`max_tail` bounds, in the reader's unit, how much may be on show without being committed;
    `budget`, weighed before each view, how much of it is likely enough to stay.
    """

    def __init__(
        self, max_tail: int | None, unit: OffsetUnit, budget: Budget | None = None
    ) -> None:
        self._max_tail = max_tail
        self._unit = unit
        self._budget = budget

    def view(self, part: PartLedger, now: float) -> View:
        committed = part.committed_length
        affordable = part.total_length if self._budget is None else self._budget.limit
        if self._max_tail is None:
            return View(committed, affordable)
        tail = part.tail[: self._max_tail]  # no unit is larger than a code point
        while units.length(tail, self._unit) > self._max_tail:
            tail = tail[:-1]
        return View(committed, min(affordable, committed + len(tail)))
