"""Time per event and attachment without sockets: whole applications, called as a server would."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, cast

import msgspec
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route

from benchmarks.gateway.source import SENTENCE, Source, frames
from gateway.app import create_app
from gateway.backends.base import Finished
from gateway.config import GatewayConfig
from protocol.requests import GenerationRequest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp, Message

    from gateway.backends.base import BackendEvent

FAN_OUTS = (2, 4, 8)
"""Readers of one stream."""


class _Exchange:
    """One request and its answer, which is counted and dropped."""

    def __init__(self, method: str, path: str, query: str = "", body: bytes = b"") -> None:
        self.first = asyncio.Event()
        self.headers: dict[bytes, bytes] = {}
        self.events = 0
        self._body = body
        self._asked = False
        self._closed = asyncio.Event()
        self.scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(b"host", b"localhost"), (b"accept", b"text/event-stream")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }

    def send_json(self) -> None:
        """The body is JSON."""
        headers = cast("list[tuple[bytes, bytes]]", self.scope["headers"])
        headers.append((b"content-type", b"application/json"))

    async def receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._closed.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.headers = dict(message["headers"])
        elif message["body"]:
            self.events += 1
            self.first.set()


async def _bare(count: int, *, turns: bool) -> float:
    """`turns`: a turn of the event loop between two frames."""
    prepared = frames(count)

    async def generate() -> AsyncGenerator[bytes]:
        for frame in prepared:
            if turns:
                await asyncio.sleep(0)
            yield frame

    async def answer(_request: Request) -> StreamingResponse:
        return StreamingResponse(generate(), media_type="text/event-stream")

    app = Starlette(routes=[Route("/", answer)])
    exchange = _Exchange("GET", "/")
    begun = time.perf_counter()
    await app(exchange.scope, exchange.receive, exchange.send)
    return time.perf_counter() - begun


async def _source(count: int) -> float:
    """The source alone, with a sink that does nothing: part of every figure of Wetink."""
    source, ended = Source(), asyncio.Event()

    def sink(event: BackendEvent) -> None:
        if isinstance(event, Finished):
            ended.set()

    await source.start()
    begun = time.perf_counter()
    request = GenerationRequest(prompt="x", model="hold", max_tokens=count)
    await source.generate("s", request, sink)
    await ended.wait()
    taken = time.perf_counter() - begun
    await source.stop()
    return taken


async def _wetink(count: int, policy: str, readers: int) -> float:
    """All readers of one stream, the first of which starts it."""
    source = Source()
    app = create_app(GatewayConfig(), source)
    async with app.router.lifespan_context(app):
        await app.state.gateway.started()
        request = {
            "prompt": "x",
            "model": policy,
            "max_tokens": count,
            "policy": policy,
        }
        least = count // SENTENCE if policy == "chunk" else count
        starter = _Exchange("POST", "/v1/streams", body=msgspec.json.encode(request))
        starter.send_json()
        tasks = [asyncio.create_task(app(starter.scope, starter.receive, starter.send))]
        begun = time.perf_counter()
        if readers > 1:
            await starter.first.wait()
            path = starter.headers[b"content-location"].decode() + "/events"
            tasks += [
                _start(app, _Exchange("GET", path, f"policy={policy}")) for _ in range(readers - 1)
            ]
        await asyncio.gather(*tasks)
        taken = time.perf_counter() - begun
        if starter.events < least:
            raise RuntimeError(f"{starter.events} writes for {least} events")
        return taken


def _start(app: ASGIApp, exchange: _Exchange) -> asyncio.Task[None]:
    async def run() -> None:
        await app(exchange.scope, exchange.receive, exchange.send)

    return asyncio.create_task(run())


def _variant(policy: str, readers: int) -> Callable[[int], Awaitable[float]]:
    return lambda count: _wetink(count, policy, readers)


BARE = "bare StreamingResponse"
TURNS = "bare, a turn of the loop per frame"
VARIANTS: dict[str, Callable[[int], Awaitable[float]]] = {
    BARE: lambda count: _bare(count, turns=False),
    TURNS: lambda count: _bare(count, turns=True),
    "the source of events alone": _source,
    **{policy: _variant(policy, 1) for policy in ("hold", "retract", "chunk")},
    **{
        f"{policy}, {readers} readers": _variant(policy, readers)
        for policy in ("hold", "retract")
        for readers in FAN_OUTS
    },
}


async def measure(count: int, rounds: int) -> dict[str, list[float]]:
    """Microseconds per event, by variant; one value per round, the variants alternating.

    `…, each further reader` is worked out from the most readers and one.
    """
    values: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for number in range(rounds + 1):
        for name, run in VARIANTS.items():
            taken = await run(count)
            if number:  # the first round warms up
                values[name].append(taken / count * 1e6)
    most = FAN_OUTS[-1]
    for policy in ("hold", "retract"):
        pairs = zip(values[f"{policy}, {most} readers"], values[policy], strict=True)
        values[f"{policy}, each further reader"] = [
            (many - one) / (most - 1) for many, one in pairs
        ]
    return values
