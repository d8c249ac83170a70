"""A real server on a free port, with a backend and a clock in the test's hands."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx

from gateway.config import GatewayConfig
from gateway.server import running_server
from protocol.codec import decode_event_json
from protocol.events import Commit, Error, Finish, Heartbeat, Open, Part, ServerEvent
from protocol.sse import SSEParser
from tests.unit.gateway.doubles import FakeClock, HandBackend

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from gateway.backends.base import Backend

PATIENCE_S = 20.0
"""How long a test waits for what must come; only a failing one waits so long."""


class Served(NamedTuple):
    url: str
    http: httpx.AsyncClient
    backend: HandBackend
    clock: FakeClock

    async def start(self, **request: object) -> str:
        """Starts a stream nobody reads yet; gives its id."""
        answer = await self.http.post("/v1/streams", json={"prompt": "hi", **request})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["stream"])

    @asynccontextmanager
    async def read(
        self, stream: str, *, last_event_id: str | None = None, **query: str
    ) -> AsyncGenerator[Reader]:
        headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
        path = f"/v1/streams/{stream}/events"
        async with self.http.stream("GET", path, params=query, headers=headers) as response:
            yield Reader(response)

    async def snapshot(self, stream: str) -> dict[str, Any]:
        answer = await self.http.get(f"/v1/streams/{stream}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def all_owed_to(self, reader: Reader) -> list[Framed]:
        """What a reader of a running stream has been sent so far and not yet taken here.

        The server's writer runs before it answers a request that comes later; after that, a silence
        of 15 s makes it send a heartbeat, which therefore stands behind all the rest.
        """
        assert (await self.http.get("/healthz")).status_code == 200
        self.clock.advance(15.0)
        framed = [await reader.next()]
        while not isinstance(framed[-1].event, Heartbeat | Finish | Error):
            framed.append(await reader.next())
        return framed


class Framed(NamedTuple):
    event: ServerEvent
    id: str | None
    """The cursor this very event carried."""


class Reader:
    """Events of one SSE response, one at a time."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.raw = b""
        self.parser = SSEParser()
        self._chunks = response.aiter_bytes()
        self._events: list[Framed] = []

    async def next(self) -> Framed:
        """The next event; fails at the end of the response."""
        async with asyncio.timeout(PATIENCE_S):
            while not self._events:
                chunk = await anext(self._chunks)
                self.raw += chunk
                self._take(chunk)
        return self._events.pop(0)

    async def events(self, count: int) -> list[ServerEvent]:
        return [(await self.next()).event for _ in range(count)]

    async def to_end(self) -> list[Framed]:
        """All the rest, up to `finish` or `error`; then the response must end."""
        framed = [await self.next()]
        while not isinstance(framed[-1].event, Finish | Error):
            framed.append(await self.next())
        async with asyncio.timeout(PATIENCE_S):
            async for chunk in self._chunks:
                assert chunk == b"", f"after the end: {chunk!r}"
        return framed

    def _take(self, chunk: bytes) -> None:
        before = self.parser.last_event_id
        for found in self.parser.feed(chunk):
            event = decode_event_json(found.data)
            assert event is not None
            assert found.event == "message"
            has_id = isinstance(event, Open | Commit | Part | Finish) or (
                isinstance(event, Error) and not event.resumable
            )
            self._events.append(Framed(event, found.id if has_id else None))
            if not has_id:
                assert found.id == before, f"{event} must not move the cursor"
            before = found.id
        assert self.parser.failure is None


@asynccontextmanager
async def serving(
    backend: Backend, clock: FakeClock | None = None, **overrides: object
) -> AsyncGenerator[tuple[str, httpx.AsyncClient]]:
    """Any backend; `overrides` with `__` for the dot: `limits__body_bytes=100`."""
    settings = {key.replace("__", "."): value for key, value in overrides.items()}
    config = GatewayConfig.load(overrides={"server.port": 0, **settings}, env={})
    make_clock = None if clock is None else lambda: clock
    # The client outlives the server, so a test can see how connections end.
    async with (
        httpx.AsyncClient(timeout=PATIENCE_S, trust_env=False) as http,
        running_server(config, backend, make_clock) as url,
    ):
        http.base_url = httpx.URL(url)
        yield url, http


@asynccontextmanager
async def hand_served(**overrides: object) -> AsyncGenerator[Served]:
    """A server that is ready."""
    backend, clock = HandBackend(), FakeClock()
    async with serving(backend, clock, **overrides) as (url, http):
        yield Served(url, http, backend, clock)
