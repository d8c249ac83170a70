"""A recording read again by one reader: what it saw, when, and what of it was taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.backends.base import Drafted, Finished, Verified
from gateway.policies import SpecPolicy
from protocol.edition import Edition
from protocol.events import OffsetUnit, Usage
from protocol.ledger import Ledger
from protocol.receiver import Receiver
from protocol.sender import Sender

if TYPE_CHECKING:
    from benchmarks.budget.record import Recording
    from protocol.requests import PolicySpec


class Reading(NamedTuple):
    """One reader's experience. Lengths in code points."""

    committed: int
    erased: int
    retractions: int
    tokens: int
    ttfv_s: float
    """To the first visible text, ..."""
    ttc_s: float
    """... to the first committed."""
    waited_s: float
    """Sum over all code points of the final text of the time when each was there for good."""
    held_s: float
    """The same, had they come when they were verified."""
    lasted_s: float
    """From the first committed text to the last."""


def read(recording: Recording, policy: PolicySpec) -> Reading:
    """Through a real sender and a real receiver, on the recording's clock.

    A reader who takes every event at once, hence sees the most that can be taken back.
    """
    ledger = Ledger()
    sender = Sender(
        Edition(
            ledger,
            SpecPolicy(policy),
            stream="s",
            epoch=1,
            model="m",
            unit=OffsetUnit.CODEPOINT,
            started_at=0.0,
        )
    )
    receiver = Receiver(OffsetUnit.CODEPOINT)
    receiver.receive(sender.open())
    seen_at: list[float] = []
    """By code point of the visible text: since when it is there."""
    committed_at: list[float] = []
    first_visible: float | None = None
    erased = retractions = tokens = 0
    for at, event in recording.events:
        match event:
            case Drafted():
                ledger.draft(event.tail, event.tokens, event.cause)
            case Verified():
                ledger.verify(event.text, event.tail, event.tokens, event.cause)
                tokens += len(event.tokens)
                committed_at += [at] * len(event.text)
            case Finished():
                if ledger.current.tail:
                    ledger.draft("", cause="draft_rejected")
                ledger.finish(event.reason, Usage(), event.counts.steps)
            case _:
                raise ValueError(f"a recording of an answer has no {event}")
        for told in sender.advance(at):
            change = receiver.receive(told)
            if change is not None:
                erased += len(change.erased)
                retractions += bool(change.erased)
                del seen_at[len(seen_at) - len(change.erased) :]
                seen_at += [at] * len(change.appended)
                if seen_at and first_visible is None:
                    first_visible = at
    return Reading(
        committed=len(committed_at),
        erased=erased,
        retractions=retractions,
        tokens=tokens,
        ttfv_s=first_visible or 0.0,
        ttc_s=committed_at[0] if committed_at else 0.0,
        waited_s=sum(seen_at),
        held_s=sum(committed_at),
        lasted_s=committed_at[-1] - committed_at[0] if committed_at else 0.0,
    )
