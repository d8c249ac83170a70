"""A policy for one part, of which a policy for a whole stream is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from protocol.ledger import PartLedger
    from protocol.policy import View


class PartPolicy(Protocol):
    """As `protocol.policy.Policy`, for a single part, whose positions only grow."""

    def view(self, part: PartLedger, now: float) -> View: ...
