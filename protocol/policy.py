"""What a policy is: what an attachment may show of a stream, given its ledger and the time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from protocol.ledger import PartLedger


class View(msgspec.Struct, frozen=True, gc=False):
    """How much of the current part a policy allows, in code points."""

    committed: int
    """Committed text may be delivered up to here."""
    shown: int
    """Text, committed or tail, may be shown up to here."""
    wake_at: float | None = None
    """Ask again at this time of the clock (seconds) even if nothing has happened."""


class Told(msgspec.Struct, frozen=True, gc=False):
    """What a sender has told its reader on this attachment so far."""

    at: int
    """The present part is told committed up to here, in code points."""
    shown: int
    """Its text is on show up to here, in code points: all of it stands in the ledger as it is now.
    """
    committed_units: int
    """Length of all text told committed since the attachment began, in the reader's unit."""
    erased_units: int
    """Length of all text taken back since then."""


class Policy(Protocol):
    """The policy of all attachments of a stream that ask for the same. Owns no I/O, timer, lock.

    What it keeps between calls is a memo of positions already found and of what it saw become of
    drafts, in which no reader matters: asked again about the same ledger it says the same until
    `wake_at`, to every reader who was told the same.
    """

    @property
    def described(self) -> dict[str, object]:
        """The policy as `open` reports it."""
        ...

    @property
    def wants_drafts(self) -> bool:
        """Whether this attachment may ever show text that is not committed."""
        ...

    @property
    def heeds_told(self) -> bool:
        """Whether what it allows a reader depends on what that reader was told."""
        ...

    def view(self, part: PartLedger, now: float, told: Told | None) -> View:
        """How much of `part` may be committed and shown at `now` (seconds of the gateway's clock)
        to a reader who was told so much of it (None, unless `heeds_told`).

        Positions are code points in the part. Parts come in order of their index. Asked as if more
        could follow, also of the last part of a stream that was cut short. Raises PolicyError.
        """
        ...
