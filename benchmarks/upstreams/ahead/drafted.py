"""What a backend with a draft ahead said about one answer, and when."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

from benchmarks.budget.record import Recording, Timed
from benchmarks.upstreams.ahead.prompts import STOPS
from benchmarks.upstreams.ahead.record import MAX_TOKENS
from gateway.backends.base import BackendEvent, Failed, Finished
from protocol.requests import GenerationRequest

if TYPE_CHECKING:
    from benchmarks.upstreams.ahead.record import Answer
    from gateway.backends.base import Backend

TOGETHER = 4
"""Streams at once."""
_numbers = itertools.count()


async def ask(backend: Backend, answer: Answer, *, want_drafts: bool = True) -> Recording:
    """One stream of it to its end. Raises RuntimeError where it fails."""
    loop = asyncio.get_running_loop()
    begun, ended = loop.time(), asyncio.Event()
    events: list[Timed] = []

    def take(event: BackendEvent) -> None:
        events.append(Timed(loop.time() - begun, event))
        if isinstance(event, Finished | Failed):
            ended.set()

    request = GenerationRequest(
        prompt=answer.prompt,
        model="upstream",
        temperature=answer.temperature,
        max_tokens=MAX_TOKENS,
        stop=STOPS[answer.kind],
    )
    await backend.generate(f"s{next(_numbers)}", request, take, want_drafts=want_drafts)
    await ended.wait()
    if isinstance(events[-1].event, Failed):
        raise RuntimeError(events[-1].event.message)
    return Recording(answer.kind, answer.prompt, events)


async def ask_all(backend: Backend, answers: list[Answer]) -> list[Recording]:
    """A few at a time, in order."""
    gate = asyncio.Semaphore(TOGETHER)

    async def one(answer: Answer) -> Recording:
        async with gate:
            return await ask(backend, answer)

    return await asyncio.gather(*map(one, answers))
