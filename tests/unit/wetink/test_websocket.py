"""Streams over one WebSocket, against a scripted peer."""

from __future__ import annotations

import asyncio
import hashlib
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

import wetink
from wetink.transports import websocket

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

AT_ONCE = wetink.Retry(attempts=3, first_s=0.0)
DIGEST = hashlib.sha256(b"Hello world").hexdigest()
pytestmark = pytest.mark.timeout(30)
JSON = Subprotocol("wetink.v1.json")


class Peer:
    """The gateway's end of one connection."""

    def __init__(self, socket: ServerConnection, log: list[dict[str, Any]]) -> None:
        self._socket = socket
        self._log = log

    async def receive(self) -> dict[str, Any]:
        message = json.loads(await self._socket.recv())
        self._log.append(message)
        return message

    async def send(self, type_: str, **fields: Any) -> None:
        await self._socket.send(json.dumps({"type": type_, **fields}))

    async def open(self, ref: str, stream: str, at: int = 0) -> None:
        await self.send(
            "open",
            ref=ref,
            stream=stream,
            v=1,
            epoch=7,
            model="m",
            policy={"kind": "retract"},
            offsets="codepoint",
            part=0,
            at=at,
        )

    async def finish(self, stream: str, at: int = 11, digest: str = DIGEST) -> None:
        stats = {"erased_units": 0, "normalized_erasure": 0.0, "retractions": 0, "longest_tail": 0}
        fields = {"at": at, "reason": "stop", "usage": {}, "digest": digest, "stats": stats}
        await self.send("finish", stream=stream, **fields)

    async def drop(self) -> None:
        self._socket.transport.abort()


@asynccontextmanager
async def peers(
    *scripts: Callable[[Peer], Awaitable[None]],
) -> AsyncGenerator[tuple[str, list[dict[str, Any]]]]:
    """A server whose n-th connection runs the n-th script; its URL, and what clients sent."""
    log: list[dict[str, Any]] = []
    waiting = list(scripts)

    async def handle(socket: ServerConnection) -> None:
        await waiting.pop(0)(Peer(socket, log))
        await socket.wait_closed()

    async with serve(handle, "127.0.0.1", 0, subprotocols=[JSON]) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"http://127.0.0.1:{port}", log


async def read_all(stream: wetink.Stream) -> str:
    return "".join([text async for text in stream.committed()])


async def test_connection_carries_several_streams() -> None:
    async def script(peer: Peer) -> None:
        first, second = (await peer.receive())["ref"], (await peer.receive())["ref"]
        await peer.open(second, "s2")
        await peer.open(first, "s1")
        await peer.send("commit", stream="s2", at=0, text="Hello world")
        await peer.send("commit", stream="s1", at=0, text="Hello ")
        await peer.finish("s2")
        await peer.send("commit", stream="s1", at=6, text="world")
        await peer.finish("s1")

    async with peers(script) as (url, log), wetink.connect(url) as connection:

        async def read(prompt: str) -> tuple[str, str]:
            async with connection.stream(prompt=prompt) as s:
                return s.id, await read_all(s)

        read_both = await asyncio.gather(read("a"), read("b"))
    assert read_both == [("s1", "Hello world"), ("s2", "Hello world")]
    assert [message["request"] for message in log] == [{"prompt": "a"}, {"prompt": "b"}]


async def test_stream_resumes_on_a_new_connection_after_a_drop() -> None:
    async def first(peer: Peer) -> None:
        await peer.open((await peer.receive())["ref"], "s1")
        await peer.send("commit", stream="s1", at=0, text="Hello ")
        await peer.send("tentative", stream="s1", at=6, text="moon")
        await peer.drop()

    async def second(peer: Peer) -> None:
        await peer.open((await peer.receive())["ref"], "s1", at=6)
        await peer.send("commit", stream="s1", at=6, text="world")
        await peer.finish("s1")

    async with (
        peers(first, second) as (url, log),
        wetink.stream(url, prompt="hi", policy="hold", transport="ws", retry=AT_ONCE) as s,
    ):
        assert await read_all(s) == "Hello world"
    assert log[1] == {
        "type": "attach",
        "ref": "2",
        "stream": "s1",
        "cursor": "7.0.6",
        "policy": "hold",
    }


async def test_slow_reader_is_detached_and_reattaches_without_holding_up_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(websocket, "MAX_WAITING_EVENTS", 3)
    letters = "Hello world"

    async def script(peer: Peer) -> None:
        await peer.open((await peer.receive())["ref"], "slow")
        await peer.open((await peer.receive())["ref"], "brisk")
        for at, letter in enumerate(letters):
            await peer.send("commit", stream="slow", at=at, text=letter)
        assert (await peer.receive())["type"] == "detach"
        await peer.send("commit", stream="brisk", at=0, text=letters)
        await peer.finish("brisk")
        again = await peer.receive()
        at = int(again["cursor"].rpartition(".")[2])
        await peer.open(again["ref"], "slow", at=at)
        await peer.send("commit", stream="slow", at=at, text=letters[at:])
        await peer.finish("slow")

    async with (
        peers(script) as (url, log),
        wetink.connect(url) as connection,
        connection.stream(prompt="slow", retry=AT_ONCE) as slow,
        connection.stream(prompt="brisk") as brisk,
    ):
        assert await read_all(brisk) == letters
        assert await read_all(slow) == letters
    assert [message["type"] for message in log] == ["start", "start", "detach", "attach"]


async def test_start_is_refused_with_the_gateways_reason() -> None:
    async def script(peer: Peer) -> None:
        ref = (await peer.receive())["ref"]
        fields = {"code": "invalid_value", "message": "no", "param": "policy"}
        await peer.send("error", ref=ref, retryable=False, at=0, **fields)

    async with peers(script) as (url, _):
        with pytest.raises(wetink.RequestRefused) as caught:
            await wetink.stream(url, prompt="hi", transport="ws").__aenter__()
    assert (caught.value.code, caught.value.param) == ("invalid_value", "policy")


async def test_attach_waits_for_as_long_as_the_gateway_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited: list[float | None] = []

    def delay(_retry: wetink.Retry, _attempt: int, retry_after: float | None = None) -> float:
        waited.append(retry_after)
        return 0.0

    async def first(peer: Peer) -> None:
        await peer.open((await peer.receive())["ref"], "s1")
        await peer.drop()

    async def second(peer: Peer) -> None:
        ref = (await peer.receive())["ref"]
        fields = {"code": "overloaded", "message": "later", "retry_after_s": 7}
        await peer.send("error", ref=ref, retryable=True, at=0, **fields)
        ref = (await peer.receive())["ref"]
        await peer.open(ref, "s1")
        await peer.send("commit", stream="s1", at=0, text="Hello world")
        await peer.finish("s1")

    monkeypatch.setattr(wetink.Retry, "delay", delay)
    async with (
        peers(first, second) as (url, _),
        wetink.stream(url, prompt="hi", transport="ws", retry=AT_ONCE) as stream,
    ):
        assert await read_all(stream) == "Hello world"
    assert waited == [None, 7.0]


async def test_attach_fails_for_a_stream_the_gateway_forgot() -> None:
    async def first(peer: Peer) -> None:
        await peer.open((await peer.receive())["ref"], "s1")
        await peer.drop()

    async def second(peer: Peer) -> None:
        ref = (await peer.receive())["ref"]
        fields = {"code": "stream_expired", "message": "too late"}
        await peer.send("error", ref=ref, retryable=False, at=0, **fields)

    async with (
        peers(first, second) as (url, _),
        wetink.stream(url, prompt="hi", transport="ws", retry=AT_ONCE) as s,
    ):
        with pytest.raises(wetink.StreamFailed, match="too late"):
            await read_all(s)


async def test_cancel_is_sent_and_the_rest_is_read() -> None:
    async def script(peer: Peer) -> None:
        ref = (await peer.receive())["ref"]
        await peer.open(ref, "s1")
        await peer.send("commit", stream="s1", at=0, text="Hello world")
        assert await peer.receive() == {"type": "cancel", "ref": ref}
        await peer.finish("s1")

    async with (
        peers(script) as (url, _),
        wetink.stream(url, prompt="hi", transport="ws") as s,
    ):
        await anext(s)
        await s.cancel()
        assert await read_all(s) == "Hello world"
    assert s.complete


async def test_cancel_is_quiet_when_the_end_has_come_unread() -> None:
    async def script(peer: Peer) -> None:
        await peer.open((await peer.receive())["ref"], "s1")
        await peer.send("commit", stream="s1", at=0, text="Hello world")
        await peer.finish("s1")
        await peer.open((await peer.receive())["ref"], "s2")
        await peer.drop()

    async with peers(script) as (url, log), wetink.connect(url) as connection:
        async with (
            connection.stream(prompt="a") as s,
            # Its `open` stands behind all of the first stream.
            connection.stream(prompt="b", retry=wetink.Retry(attempts=0)) as other,
        ):
            await s.cancel()
            with pytest.raises(wetink.ConnectionLost):
                await read_all(other)
            await s.cancel()  # nor when the connection has been lost meanwhile
            assert await read_all(s) == "Hello world"
            await s.cancel()
        assert s.complete
    assert [message["type"] for message in log] == ["start", "start"]


async def test_leaving_early_detaches_and_leaves_the_connection_open() -> None:
    async def script(peer: Peer) -> None:
        ref = (await peer.receive())["ref"]
        await peer.open(ref, "s1")
        assert await peer.receive() == {"type": "detach", "ref": ref}
        ref = (await peer.receive())["ref"]
        await peer.open(ref, "s2")
        await peer.send("commit", stream="s1", at=0, text="late, for a reader who left")
        await peer.send("commit", stream="s2", at=0, text="Hello world")
        await peer.finish("s2")

    async with peers(script) as (url, _), wetink.connect(url) as connection:
        async with connection.stream(prompt="a") as a:
            await anext(a)
        async with connection.stream(prompt="b") as b:
            assert await read_all(b) == "Hello world"


async def test_start_that_is_given_up_before_it_opens_is_cancelled_by_its_ref() -> None:
    said: list[dict[str, Any]] = []
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        said.append(await peer.receive())
        started.set()
        said.append(await peer.receive())
        cancelled.set()

    async with peers(script) as (url, _):
        opening = asyncio.ensure_future(
            wetink.stream(url, prompt="hi", transport="ws").__aenter__()
        )
        await started.wait()
        opening.cancel()
        await asyncio.wait([opening])
        await cancelled.wait()
    assert (said[1]["type"], said[1]["ref"]) == ("cancel", said[0]["ref"])


async def test_refused_ack_ends_nothing() -> None:
    async def script(peer: Peer) -> None:
        ref = (await peer.receive())["ref"]
        await peer.open(ref, "s1")
        refusal = {"code": "invalid_value", "message": "no", "retryable": False, "at": 0}
        await peer.send("error", ref=ref, **refusal)
        await peer.send("commit", stream="s1", at=0, text="Hello world")
        await peer.finish("s1")

    async with peers(script) as (url, _), wetink.stream(url, prompt="hi", transport="ws") as s:
        assert await read_all(s) == "Hello world"
    assert s.complete


async def test_broken_event_ends_the_connection_as_a_violation() -> None:
    async def script(peer: Peer) -> None:
        await peer.open((await peer.receive())["ref"], "s1")
        await peer.send("commit", stream="s1", at="six", text="x")

    async with (
        peers(script) as (url, _),
        wetink.stream(url, prompt="hi", transport="ws") as s,
    ):
        with pytest.raises(wetink.ProtocolViolation):
            await read_all(s)


async def test_stream_says_so_when_the_peer_speaks_another_protocol() -> None:
    async def handle(socket: ServerConnection) -> None:
        await socket.wait_closed()

    async with serve(handle, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        with pytest.raises(wetink.ProtocolViolation, match="does not speak"):
            await wetink.stream(f"ws://127.0.0.1:{port}", prompt="hi", transport="ws").__aenter__()


@pytest.mark.parametrize(
    "url", ["ftp://host", "host:port", "http://", "", "http://[", "http://h:x", "ws://h:99999"]
)
@pytest.mark.parametrize("transport", ["sse", "ws"])
def test_stream_refuses_an_address_it_cannot_use(url: str, transport: str) -> None:
    with pytest.raises(wetink.RequestRefused) as caught:
        wetink.stream(url, prompt="hi", transport=transport)  # pyright: ignore[reportArgumentType]
    assert caught.value.param == "url"


async def test_reader_acknowledges_what_was_committed_even_after_the_end() -> None:
    async def script(peer: Peer) -> None:
        await peer.open((await peer.receive())["ref"], "s1")
        await peer.send("commit", stream="s1", at=0, text="Hello ")
        await peer.send("tentative", stream="s1", at=6, text="world")
        await peer.receive()
        await peer.send("commit", stream="s1", at=6, text="world")
        await peer.finish("s1")
        await peer.receive()

    async with (
        peers(script) as (url, log),
        wetink.stream(url, prompt="x", transport="ws") as s,
    ):
        async for event in s:
            if isinstance(event, wetink.Tentative):
                with pytest.raises(ValueError, match="beyond what was committed: part 0, offset 7"):
                    await s.ack(7)
                assert await s.ack(6)
        assert await s.ack(11, part=0)
        with pytest.raises(ValueError, match="part 1, offset 0"):
            await s.ack(0, part=1)
    ref = log[0]["ref"]
    acks = [message for message in log if message["type"] == "ack"]
    assert acks == [{"type": "ack", "ref": ref, "at": at, "part": 0} for at in (6, 11)]


async def test_ack_is_not_said_when_the_connection_is_down() -> None:
    async def script(peer: Peer) -> None:
        await peer.open((await peer.receive())["ref"], "s1")
        await peer.send("commit", stream="s1", at=0, text="Hello ")
        await peer.drop()

    said: list[bool] = []
    async with peers(script) as (url, log):
        s = wetink.stream(url, prompt="x", transport="ws", retry=wetink.Retry(attempts=0))
        with pytest.raises(wetink.ConnectionLost):
            async with s:
                try:
                    async for _ in s:
                        pass
                finally:
                    said.append(await s.ack(6))
    assert said == [False]
    assert [message["type"] for message in log] == ["start"]
