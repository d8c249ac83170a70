"""`hold`: text leaves when it is verified, and only then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.policy import View

if TYPE_CHECKING:
    from protocol.ledger import PartLedger


class HoldPart:
    def view(self, part: PartLedger, now: float) -> View:
        return View(part.committed_length, part.committed_length)
