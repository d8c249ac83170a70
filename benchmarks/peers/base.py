"""What a measure may ask of a server, whoever wrote it.

A peer answers batches of chat requests, greedily. Wetink stands behind the same interface.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class PeerError(Exception):
    """A peer cannot be installed, started or asked. The message is the reason, as one line."""


class Request(NamedTuple):
    """One user's message, answered greedily."""

    content: str
    max_tokens: int
    ignore_eos: bool = False
    """Say exactly `max_tokens` tokens."""
    long: bool = False
    """Prompt and answer together exceed `SHORT_CONTEXT` tokens."""
    drafter: str | None = None
    """Who drafts; None: nobody does. Wetink only."""
    prediction: str | None = None
    """Text the answer will largely repeat; Wetink only."""


SHORT_CONTEXT = 1024
LONG_CONTEXT = 4096


class Answer(NamedTuple):
    text: str
    prompt_tokens: int
    tokens: int
    first_s: float
    """From sending the request to the first text that stays."""
    total_s: float
    """From sending the request to its end."""
    drafted: int = 0
    accepted: int = 0


class Peer(Protocol):
    """Not started yet after construction; `stop` may be called in any state."""

    name: str

    def start(self) -> float:
        """Start and wait until it answers; returns the seconds. Raises PeerError."""
        ...

    def stop(self) -> None: ...

    def version(self) -> str:
        """Of the software behind it. Raises PeerError."""
        ...

    async def ask(self, requests: Sequence[Request]) -> list[Answer]:
        """All at once; returns when all have ended. Raises PeerError."""
        ...
