"""What the engine asks of a drafter. A drafter may be wrong, never harmful: every token it proposes
is verified.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class Proposal(NamedTuple):
    tokens: list[int]
    confidence: list[float]
    """Per token, the chance that it is accepted: that it *and all before it* are what the target
    says. Never rises along the list.
    """
    forced: bool = False
    """Not a drafter's guess: a grammar leaves no choice."""

    def first(self, count: int) -> Proposal:
        """Its first `count` tokens."""
        return self._replace(tokens=self.tokens[:count], confidence=self.confidence[:count])


class SequenceView(Protocol):
    """What a drafter may read of a sequence, and must not change."""

    @property
    def stream(self) -> str: ...

    @property
    def salt(self) -> bytes:
        """The tenant's; nothing is shared between two."""
        ...

    @property
    def tokens(self) -> list[int]:
        """Prompt and committed tokens so far. Only ever grows at its end."""
        ...


class Drafter(Protocol):
    """Called by the engine's thread only, in this order per stream: `begin`, then any number of
    `propose` (each followed by `observe` if something of it was verified), then `end`.
    """

    name: str

    def begin(self, stream: str, prompt: Sequence[int], prediction: Sequence[int]) -> None:
        """A stream begins. `prediction`: tokens of the caller's guess at the output, or none."""
        ...

    def propose(self, items: Sequence[tuple[SequenceView, int]]) -> list[Proposal]:
        """One proposal per item, in order, of at most as many tokens as the item's number."""
        ...

    def observe(self, stream: str, drafted: int, accepted: int) -> None:
        """The verdict on the stream's last proposal: of its first `drafted` tokens, the first
        `accepted` were right.
        """
        ...

    def end(self, stream: str) -> None:
        """The stream is over; idempotent."""
        ...
