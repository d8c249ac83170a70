"""What somebody on the way sees of a delivery that is shaped: over real sockets, with the server's
clock in the test's hands.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlsplit

import msgspec
import pytest

from gateway.access import Allowance
from gateway.access import keys as stored
from gateway.access.keys import Scope
from gateway.backends.base import Drafted, Finished, TokenCounts, Verified
from protocol.codec import decode_event_json, decode_event_msgpack
from protocol.events import Finish
from protocol.receiver import Receiver
from protocol.requests import Shape
from protocol.sse import SSEParser
from tests.server.gateways import PATIENCE_S, Served, hand_served
from tests.server.keyed import Keys, bearer, key_served
from tests.server.test_websocket import JSON, MSGPACK, socket_to

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from gateway.backends.base import BackendEvent

TICK_S = 0.1
PAD = 1024
SHAPE = {"pad": PAD, "tick_ms": 100}
TICKS = 12
"""How long each of the generations below takes."""
TEXT = "".join(f"word{n:02d} " for n in range(TICKS * 4))
"""Four words per tick."""
WORD = len("word00 ")


class Piece(NamedTuple):
    """One write, as it crosses the wire."""

    tick: int
    size: int


Generation = list[list["BackendEvent"]]
"""What the backend says after each tick."""


def _finished(drafted: int, accepted: int) -> Finished:
    counts = TokenCounts(prompt=1, completion=48, drafted=drafted, accepted=accepted, steps=48)
    return Finished("stop", counts)


def nothing_accepted() -> Generation:
    """A word at a time; every draft is wrong."""
    said: Generation = []
    for tick in range(TICKS):
        events: list[BackendEvent] = []
        for word in range(tick * 4, tick * 4 + 4):
            text = TEXT[word * WORD : (word + 1) * WORD]
            events += [Drafted("a wrong guess at it"), Verified(text, cause="draft_rejected")]
        said.append(events)
    return [*said[:-1], [*said[-1], _finished(480, 0)]]


def all_accepted() -> Generation:
    """Sixteen words at a time, every fourth tick; every draft is right."""
    said: Generation = []
    for tick in range(TICKS):
        block = TEXT[tick // 4 * 16 * WORD : (tick // 4 + 1) * 16 * WORD]
        said.append([Verified(block)] if tick % 4 == 3 else [Drafted(block[: 5 * (tick % 4 + 1)])])
    return [*said[:-1], [*said[-1], _finished(480, 480)]]


def all_at_once() -> Generation:
    """Done after three ticks."""
    return [[], [Drafted(TEXT)], [Verified(TEXT), _finished(48, 48)]]


async def _play(
    served: Served, generation: Generation, read: Callable[[], Awaitable[int]]
) -> list[Piece]:
    """`read` gives the size of the next write, 0 when there is none any more."""
    pieces: asyncio.Queue[Piece | None] = asyncio.Queue()
    began = served.clock.now()

    async def watch() -> None:
        while size := await read():
            pieces.put_nowait(Piece(round((served.clock.now() - began) / TICK_S), size))
        pieces.put_nowait(None)

    watching = asyncio.create_task(watch())
    seen: list[Piece] = []
    for events in (*generation, *itertools.repeat([], TICKS)):
        if events:
            served.backend.say(*events)
        # What is written without waiting for a tick is seen before this is answered.
        assert (await served.http.get("/healthz")).status_code == 200
        served.clock.advance(TICK_S)
        piece = await asyncio.wait_for(pieces.get(), PATIENCE_S)
        if piece is None:
            break
        seen.append(piece)
    await watching
    return seen


class EventStream:
    """An event stream as the bytes of HTTP chunks, each of which is one write of the server's."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self.body = b""

    async def read(self) -> int:
        size = int(await self._reader.readline(), 16)
        self.body += await self._reader.readexactly(size)
        await self._reader.readline()
        return size

    @property
    def text(self) -> str:
        parser, receiver = SSEParser(), Receiver()
        for found in parser.feed(self.body):
            event = decode_event_json(found.data)
            assert event is not None
            receiver.receive(event)
        assert receiver.failure is None
        assert receiver.finish is not None
        return receiver.committed


async def watch_event_stream(generation: Generation, policy: dict[str, Any]) -> list[Piece]:
    async with hand_served() as served:
        stream = await served.start(policy="hold")
        url = urlsplit(served.url)
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        query = f"policy={quote(json.dumps(policy))}"
        request = f"GET /v1/streams/{stream}/events?{query} HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n"
        writer.write(request.encode())
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
        assert head.startswith(b"HTTP/1.1 200"), head
        watched = EventStream(reader)
        seen = await _play(served, generation, watched.read)
        assert watched.text == TEXT
        writer.close()
        await writer.wait_closed()
        return seen


async def watch_socket(
    generation: Generation, policy: dict[str, Any], subprotocol: str
) -> list[Piece]:
    receiver = Receiver()
    async with hand_served() as served, socket_to(served, subprotocol) as socket:
        await socket.send("start", ref="a", request={"prompt": "hi", "policy": policy})
        await asyncio.wait_for(served.backend.admitted.get(), PATIENCE_S)

        async def read() -> int:
            if receiver.finish is not None:
                return 0
            data = await socket.connection.recv()
            if isinstance(data, bytes):
                event = decode_event_msgpack(data)
            else:
                event = decode_event_json(data)
                data = data.encode()
            assert event is not None
            receiver.receive(event)
            assert receiver.failure is None
            return len(data)

        seen = await _play(served, generation, read)
        assert receiver.committed == TEXT
        return seen


POLICIES: list[dict[str, Any]] = [
    {"kind": "hold"},
    {"kind": "retract"},
    {"kind": "chunk", "unit": "clause"},
]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy["kind"])
async def test_sizes_and_times_of_an_event_stream_do_not_depend_on_acceptance(
    policy: dict[str, Any],
) -> None:
    policy = {**policy, "shape": SHAPE}
    seen = await watch_event_stream(nothing_accepted(), policy)
    assert [piece.tick for piece in seen] == list(range(1, len(seen) + 1))
    assert {piece.size for piece in seen[1:]} == {PAD}
    assert seen == await watch_event_stream(all_accepted(), policy)
    # A generation that takes another time lasts for another number of ticks: nothing else differs.
    short = await watch_event_stream(all_at_once(), policy)
    assert len(short) < len(seen)
    assert seen[: len(short)] == short


@pytest.mark.parametrize("subprotocol", [JSON, MSGPACK])
@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy["kind"])
async def test_sizes_and_times_on_a_socket_do_not_depend_on_acceptance(
    policy: dict[str, Any], subprotocol: str
) -> None:
    policy = {**policy, "shape": SHAPE}
    one = await watch_socket(nothing_accepted(), policy, subprotocol)
    other = await watch_socket(all_accepted(), policy, subprotocol)
    assert [piece.tick for piece in one] == list(range(1, len(one) + 1))
    assert {piece.size for piece in one} == {PAD}
    # One event per tick: what is still owed at the end takes ticks of its own.
    assert abs(len(one) - len(other)) <= 2
    least = min(len(one), len(other))
    assert one[:least] == other[:least]


async def test_somebody_on_the_way_sees_acceptance_where_nothing_is_shaped() -> None:
    """What the tests above would see if shaping did nothing."""
    async with hand_served() as served:
        sizes: list[list[int]] = []
        for generation in (nothing_accepted(), all_accepted()):
            stream = await served.start(policy="retract")
            async with served.read(stream, policy="retract") as reader:
                grown: list[int] = []
                for events in generation:
                    served.backend.say(*events, stream=stream)
                    assert (await served.http.get("/healthz")).status_code == 200
                    while not isinstance(events[-1], Finished) and len(reader.raw) == sum(grown):
                        await reader.next()
                    grown.append(len(reader.raw) - sum(grown))
                sizes.append(grown)
    assert sizes[0] != sizes[1]


async def test_more_than_fits_into_a_tick_waits_for_the_next_on_an_event_stream() -> None:
    text = "x" * 5 * PAD
    async with hand_served() as served:
        stream = await served.start()
        policy = json.dumps({"kind": "hold", "shape": SHAPE})
        async with served.read(stream, policy=policy) as reader:
            served.backend.say(Verified(text), Finished("stop"))
            ticks = 0
            finish = None
            receiver = Receiver()
            while finish is None:
                served.clock.advance(TICK_S)
                ticks += 1
                assert (await served.http.get("/healthz")).status_code == 200
                if ticks < 6:
                    continue
                event = (await reader.next()).event
                receiver.receive(event)
                finish = event if isinstance(event, Finish) else None
            assert receiver.committed == text
            assert len(reader.raw) % PAD == len(b"retry: 1000\n\n")


async def test_server_shapes_what_asks_for_no_shape() -> None:
    async with hand_served(delivery__pad=2048, delivery__tick_ms=50) as served:
        stream = await served.start()
        async with served.read(stream) as reader:
            served.clock.advance(0.06)
            opened = (await reader.next()).event
            described = msgspec.to_builtins(opened)["policy"]
            assert described["shape"] == {"pad": 2048, "tick_ms": 50}
            assert len(reader.raw) == 2048 + len(b"retry: 1000\n\n")


async def test_key_shapes_what_asks_for_no_shape_on_every_interface(tmp_path: Path) -> None:
    text, kept = stored.draw("shy", Scope(shape=Shape(pad=1500)), Allowance(), now=0)
    keys = Keys(text, text, text, text, text, [kept])
    async with key_served(keys, tmp_path) as served:
        body = {"model": "hand", "prompt": "hi", "stream": True}
        headers = bearer(text)
        for path, at_first in (("/v1/streams", len(b"retry: 1000\n\n")), ("/v1/completions", 0)):
            asked = {**body} if path == "/v1/completions" else {"prompt": "hi"}
            accept = {**headers, "Accept": "text/event-stream"}
            async with served.http.stream("POST", path, json=asked, headers=accept) as answer:
                stream = await served.backend.admitted.get()
                served.backend.say(Verified("a"), Finished("stop"), stream=stream)
                served.clock.advance(TICK_S)
                await answer.aread()
            assert len(answer.content) == 1500 + at_first


async def test_reader_of_a_shaped_stream_is_told_of_the_gateways_end_at_once() -> None:
    policy = {"kind": "hold", "shape": SHAPE}
    async with AsyncExitStack() as gateway:
        served = await gateway.enter_async_context(hand_served())
        async with socket_to(served) as socket:
            await socket.send("start", ref="a", request={"prompt": "hi", "policy": policy})
            await asyncio.wait_for(served.backend.admitted.get(), PATIENCE_S)
            served.clock.advance(TICK_S)
            await socket.next()
            ending = asyncio.create_task(gateway.aclose())
            assert msgspec.to_builtins(await socket.next())["code"] == "shutting_down"
            await ending
