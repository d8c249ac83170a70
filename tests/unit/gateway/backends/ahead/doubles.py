"""A draft model that believes in one text and says it in pieces, when a test lets it."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from gateway.backends.base import Admission, Finished, ModelInfo, Sink, Verified
from protocol.events import Token

if TYPE_CHECKING:
    from protocol.requests import GenerationRequest

PIECE = 3


class Believer:
    """Begins to speak as soon as it is asked, and goes on for as long as it is not cancelled."""

    def __init__(self, belief: str, *, claim: float = 0.97) -> None:
        self.belief = belief
        self.claim = claim
        self.ready = True
        self.places: int | None = 4
        self.live = 0
        self.asked: list[tuple[GenerationRequest, str]] = []
        """Requests of runs, each with what its answer had said by then."""
        self._cancelled: set[str] = set()

    async def start(self) -> None:
        """Nothing to load."""

    async def stop(self) -> None:
        """Nothing to end."""

    def models(self) -> list[ModelInfo]:
        return [ModelInfo(id="believer", context_length=100)]

    async def generate(
        self,
        stream: str,
        request: GenerationRequest,
        sink: Sink,
        *,
        want_drafts: bool = False,
        tenant: str = "",
        begun: str = "",
    ) -> Admission:
        del want_drafts, tenant
        if stream == "ahead-0":  # warming up
            return Admission(prompt_tokens=1, seed=0)
        self.asked.append((request, begun))
        self.live += 1
        rest = self.belief[len(begun) :] if self.belief.startswith(begun) else ""
        for number, at in enumerate(range(0, len(rest), PIECE)):
            if stream in self._cancelled or number == request.max_tokens:
                break
            text = rest[at : at + PIECE]
            sink(Verified(text, tokens=[Token(1, len(text), math.log(self.claim))]))
            await asyncio.sleep(0)
        self.live -= 1
        cut_short = len(rest) > PIECE * request.max_tokens
        reason = "length" if cut_short else "stop"
        sink(Finished("cancelled" if stream in self._cancelled else reason))
        return Admission(prompt_tokens=1, seed=0)

    def cancel(self, stream: str) -> None:
        self._cancelled.add(stream)
