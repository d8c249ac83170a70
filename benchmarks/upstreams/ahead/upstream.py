"""The slow upstream: says a recorded answer at the pace of a large model far away."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from gateway.backends.base import (
    Admission,
    Finished,
    Load,
    ModelInfo,
    Sink,
    TokenCounts,
    Verified,
)
from protocol.events import FinishReason

if TYPE_CHECKING:
    from benchmarks.upstreams.ahead.record import Answer
    from protocol.requests import GenerationRequest


class Speed(NamedTuple):
    first_s: float
    """To the first token, the way to it included."""
    tokens_per_s: float


SLOW = Speed(first_s=1.5 + 0.2, tokens_per_s=15.0)
"""70 billion weights, 200 ms away."""
FAST = Speed(first_s=0.02, tokens_per_s=400.0)


class RecordedUpstream:
    """A `Backend` that knows one answer to each prompt."""

    def __init__(self, answers: list[Answer], speed: Speed) -> None:
        self._answers = {(answer.prompt, answer.temperature): answer for answer in answers}
        self._speed = speed
        self._tasks: dict[str, asyncio.Task[None]] = {}

    ready = True
    places = None

    async def start(self) -> None:
        """Nothing has to be loaded."""

    async def stop(self) -> None:
        for task in self._tasks.values():
            task.cancel()

    def models(self) -> list[ModelInfo]:
        return [ModelInfo(id="upstream", context_length=8192)]

    def load(self) -> Load:
        return Load(running=len(self._tasks))

    async def generate(
        self,
        stream: str,
        request: GenerationRequest,
        sink: Sink,
        *,
        want_drafts: bool = False,
        tenant: str = "",
    ) -> Admission:
        del want_drafts, tenant
        answer = self._answers[request.prompt or "", request.temperature or 0.0]
        self._tasks[stream] = asyncio.create_task(self._say(stream, answer.pieces, sink))
        return Admission(prompt_tokens=1, seed=request.seed)

    def cancel(self, stream: str) -> None:
        self._tasks[stream].cancel()

    def want_drafts(self, stream: str, wanted: bool) -> None:
        """It has none."""

    async def _say(self, stream: str, pieces: list[str], sink: Sink) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + self._speed.first_s
        for number, piece in enumerate(pieces, start=1):
            await asyncio.sleep(due - loop.time())
            sink(Verified(piece, counts=TokenCounts(completion=number)))
            due += 1 / self._speed.tokens_per_s
        self._tasks.pop(stream)
        sink(Finished(FinishReason.STOP, TokenCounts(completion=len(pieces))))
