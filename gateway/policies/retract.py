"""`retract`: tentative text at once; committed or taken back on the verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.server import View

if TYPE_CHECKING:
    from protocol.ledger import PartLedger


class RetractPart:
    """`max_tail` bounds, in code points, how much may be on show without being committed.

    The committed text only grows, so the bound never asks to hide what is shown already.
    """

    def __init__(self, max_tail: int | None) -> None:
        self._max_tail = max_tail

    def view(self, part: PartLedger, now: float) -> View:
        shown = part.total_length
        if self._max_tail is not None:
            shown = min(shown, part.committed_length + self._max_tail)
        return View(part.committed_length, shown)
