"""What a policy is: a reader's share of the ledger, as a function of the ledger and the clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from protocol.ledger import PartLedger
    from protocol.server import View


class Policy(Protocol):
    """One attachment's policy. Owns no I/O, timer or lock.

    What it keeps between calls is a memo of positions already found, never anything that another
    call order could change: asked again about the same ledger at the same time it says the same.
    """

    @property
    def described(self) -> dict[str, object]:
        """The policy as `open` reports it."""
        ...

    @property
    def wants_drafts(self) -> bool:
        """Whether this reader may ever see text that is not committed."""
        ...

    def view(self, part: PartLedger, now: float) -> View:
        """How much of `part` may be committed and shown at `now` (seconds of the gateway's clock).

        Positions are code points in the part. Parts come in order of their index.
        """
        ...


class PartPolicy(Protocol):
    """The same for a single part, whose positions only grow."""

    def view(self, part: PartLedger, now: float) -> View: ...
