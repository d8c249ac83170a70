"""What a stream is told by a backend, held against the ledger's rules."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, assert_never

import msgspec

from gateway.backends.base import Drafted, Failed, Finished, PartBegins, Verified
from gateway.backends.openai import OpenAIBackend
from gateway.config.upstreams import UpstreamConfig
from gateway.errors import BackendError
from protocol.errors import RequestError
from protocol.ledger import Ledger
from protocol.requests import GenerationRequest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from gateway.backends.base import Backend, BackendEvent

PATIENCE_S = 30.0


class Reading:
    """A sink."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.events: list[BackendEvent] = []
        self.end: Finished | Failed | None = None
        self.refused: BackendError | RequestError | None = None
        self.begun = asyncio.Event()
        self._ended = asyncio.Event()

    @property
    def text(self) -> str:
        return "".join(part.committed_text() for part in self.ledger.parts)

    def __call__(self, event: BackendEvent) -> None:
        assert self.end is None, f"{event} after {self.end}"
        self.events.append(event)
        self.begun.set()
        match event:
            case Verified():
                self.ledger.verify(event.text, event.tail, event.tokens, event.cause)
            case Drafted():
                self.ledger.draft(event.tail, event.tokens, event.cause)
            case PartBegins():
                self.ledger.begin_part(event.kind, event.name)
            case Finished() | Failed():
                self.end = event
                self._ended.set()
            case _:
                assert_never(event)

    async def to_end(self) -> Reading:
        async with asyncio.timeout(PATIENCE_S):
            await self._ended.wait()
        return self


@asynccontextmanager
async def running(*urls: str, **settings: object) -> AsyncGenerator[OpenAIBackend]:
    """A backend in front of `urls` that does not wait long."""
    quick = {"stall_s": 0.3, "first_byte_s": 0.5, "rest_s": 0.05, "longest_rest_s": 0.2}
    wanted = {"urls": list(urls), **quick, **settings}
    backend = OpenAIBackend(msgspec.convert(wanted, UpstreamConfig))
    async with asyncio.timeout(PATIENCE_S):
        await backend.start()
    try:
        yield backend
    finally:
        await backend.stop()


async def said(
    backend: Backend,
    seed: int,
    *,
    stream: str = "s",
    chat: bool = False,
    reading: Reading | None = None,
    **fields: object,
) -> Reading:
    """One generation to its end."""
    reading = reading or Reading()
    asked = {"messages": [{"role": "user", "content": "?"}]} if chat else {"prompt": "Say it?"}
    raw = {"model": "m", "seed": seed, **asked, **fields}
    request = msgspec.convert(raw, GenerationRequest)
    try:
        await backend.generate(stream, request, reading)
    except (BackendError, RequestError) as error:
        reading.refused = error
        return reading
    return await reading.to_end()
