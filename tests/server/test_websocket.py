"""`/v1/ws` with a real WebSocket client."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from gateway.backends.base import Drafted, Finished, Verified
from protocol.codec import decode_event_json, decode_event_msgpack
from protocol.events import Commit, Error, Finish, Heartbeat, Open, ServerEvent, Tentative
from protocol.receiver import Receiver
from tests.server.gateways import PATIENCE_S, hand_served
from tests.unit.gateway.doubles import SMALL_TALK, SMALL_TALK_TEXT

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.server.gateways import Served

JSON, MSGPACK = "wetink.v1.json", "wetink.v1.msgpack"


class Socket:
    def __init__(self, connection: ClientConnection, subprotocol: str | None) -> None:
        self.connection = connection
        self.packs = subprotocol == MSGPACK

    async def send(self, type_: str, **fields: object) -> None:
        message = {"type": type_, **fields}
        if self.packs:
            await self.connection.send(msgspec.msgpack.encode(message))
        else:
            await self.connection.send(json.dumps(message))

    async def next(self) -> ServerEvent:
        data = await asyncio.wait_for(self.connection.recv(), PATIENCE_S)
        if self.packs:
            assert isinstance(data, bytes)
            event = decode_event_msgpack(data)
        else:
            assert isinstance(data, str)
            event = decode_event_json(data)
        assert event is not None
        return event

    async def refused(self) -> tuple[str, str | None, str | None]:
        """(code, ref, param) of the error that answers a message."""
        event = await self.next()
        assert isinstance(event, Error)
        assert event.stream is None
        return event.code, event.ref, event.param

    async def start(self, ref: str, **request: object) -> Open:
        await self.send("start", ref=ref, request={"prompt": "hi", **request})
        event = await self.next()
        assert isinstance(event, Open)
        assert event.ref == ref
        return event


@asynccontextmanager
async def socket_to(served: Served, subprotocol: str | None = JSON) -> AsyncGenerator[Socket]:
    offered = [] if subprotocol is None else [Subprotocol(subprotocol)]
    url = f"{served.url.replace('http', 'ws', 1)}/v1/ws"
    async with connect(url, subprotocols=offered or None, proxy=None) as connection:
        assert connection.subprotocol == subprotocol
        yield Socket(connection, subprotocol)


@pytest.mark.parametrize("subprotocol", [JSON, MSGPACK, None])
async def test_one_socket_carries_many_streams(served: Served, subprotocol: str | None) -> None:
    async with socket_to(served, subprotocol) as socket:
        streams: dict[str, Receiver] = {}
        policies = ["hold", "retract", "chunk:sentence", "ide"]
        for ref, policy in enumerate(policies):
            opened = await socket.start(str(ref), policy=policy)
            assert opened.stream is not None
            streams[opened.stream] = Receiver()
            streams[opened.stream].receive(opened)
        for event in SMALL_TALK:
            for stream in streams:
                served.backend.say(event, stream=stream)
        finished: set[str] = set()
        while len(finished) < len(streams):
            event = await socket.next()
            assert event.stream is not None
            streams[event.stream].receive(event)
            if isinstance(event, Finish):
                finished.add(event.stream)
        for reader in streams.values():
            assert reader.failure is None
            assert reader.committed == SMALL_TALK_TEXT


async def test_policy_that_fails_leaves_the_other_streams_of_its_socket_alone(
    served: Served, failing_sentences: None
) -> None:
    async with socket_to(served) as socket:
        one = (await socket.start("a", policy="chunk:sentence")).stream
        two = (await socket.start("b", policy="hold")).stream
        served.backend.say(Verified("poison"), stream=one)
        failed = await socket.next()
        assert isinstance(failed, Error)
        assert (failed.stream, failed.code, failed.ended) == (one, "policy_failed", False)
        served.backend.say(Verified("fine"), stream=two)
        assert await socket.next() == Commit(stream=two, at=0, text="fine")
        await socket.send("attach", ref="c", stream=one, policy="hold")
        assert isinstance(await socket.next(), Open)
        assert await socket.next() == Commit(stream=one, at=0, text="poison")


async def test_cursor_marked_finish_is_answered_with_finish_again(served: Served) -> None:
    stream = await served.start()
    served.backend.say(Verified("ab"), Finished("length"))
    cursor = f"{(await served.snapshot(stream))['cursor']}.finish"
    async with socket_to(served) as socket:
        await socket.send("attach", ref="a", stream=stream, cursor=cursor)
        assert isinstance(await socket.next(), Open)
        assert isinstance(await socket.next(), Finish)


async def test_reader_moves_from_http_to_a_socket_with_its_cursor(served: Served) -> None:
    stream = await served.start()
    served.backend.say(*SMALL_TALK[:4])
    reader = Receiver()
    async with served.read(stream, policy="retract") as http:
        for event in await http.events(2):
            reader.receive(event)
    reader.interrupted()
    async with socket_to(served) as socket:
        await socket.send("attach", ref="r", stream=stream, cursor=reader.cursor, policy="hold")
        served.backend.say(*SMALL_TALK[4:])
        while reader.finish is None:
            reader.receive(await socket.next())
            assert reader.failure is None
    assert reader.committed == SMALL_TALK_TEXT


async def test_detached_reader_gets_nothing_more_and_the_stream_lives_on(served: Served) -> None:
    async with socket_to(served) as socket:
        opened = await socket.start("a", policy="retract")
        assert await served.backend.asked.get() == "drafts on"
        await socket.send("detach", ref="a")
        assert await served.backend.asked.get() == "drafts off"
        served.backend.say(Verified("x"))
        await socket.send("attach", ref="b", stream=opened.stream)
        assert isinstance(await socket.next(), Open)
        assert await socket.next() == Commit(stream=opened.stream, at=0, text="x")


async def test_closed_socket_leaves_its_streams_to_the_grace_period(served: Served) -> None:
    async with socket_to(served) as socket:
        opened = await socket.start("a", policy="retract")
        assert await served.backend.asked.get() == "drafts on"
    assert await served.backend.asked.get() == "drafts off"
    served.clock.advance(30.0)
    assert await served.backend.asked.get() == "cancel"
    assert served.backend.cancelled == [opened.stream]


async def test_cancel_by_ref_is_idempotent_even_after_the_end(served: Served) -> None:
    async with socket_to(served) as socket:
        opened = await socket.start("a")
        await socket.send("cancel", ref="a")
        await socket.send("cancel", ref="a")
        finish = await socket.next()
        assert isinstance(finish, Finish)
        assert finish.reason == "cancelled"
        await socket.send("cancel", ref="a")
        await socket.send("nonsense", ref="after")
        assert await socket.refused() == ("unknown_message", "after", "type")
    assert served.backend.cancelled == [opened.stream]


async def test_ack_is_kept_with_the_reader_and_never_beyond_what_was_sent(served: Served) -> None:
    async with socket_to(served) as socket:
        opened = await socket.start("a", policy="hold")
        assert opened.stream is not None
        served.backend.say(Verified("four"))
        await socket.next()
        await socket.send("ack", ref="a", at=3)
        await socket.send("ack", ref="a", at=9)
        assert await socket.refused() == ("invalid_value", "a", "at")
        (reader,) = (await served.snapshot(opened.stream))["attachments"]
        assert reader["ack"] == "0.3"
        served.backend.say(Finished("stop"))
        assert isinstance(await socket.next(), Finish)
        await socket.send("ack", ref="a", at=4)
        await socket.send("detach", ref="a")
        await socket.send("ack", ref="a", at=4)
        assert await socket.refused() == ("unknown_ref", "a", "ref")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("{", ("malformed_json", None, None)),
        ('"text"', ("invalid_value", None, None)),
        ('{"ref":"q"}', ("missing_field", "q", "type")),
        ('{"type":"dance","ref":"q"}', ("unknown_message", "q", "type")),
        ('{"type":"detach","ref":"q"}', ("unknown_ref", "q", "ref")),
        ('{"type":"cancel","ref":"q"}', ("unknown_ref", "q", "ref")),
        ('{"type":"ack","ref":"q","at":-1}', ("invalid_value", "q", "at")),
        (
            '{"type":"start","ref":"used","request":{"prompt":"x"}}',
            ("duplicate_ref", "used", "ref"),
        ),
        ('{"type":"attach","ref":"q","stream":"none"}', ("unknown_stream", "q", "stream")),
        (
            '{"type":"attach","ref":"q","stream":"none","cursor":"1.0.0"}',
            ("unknown_epoch", "q", "cursor"),
        ),
        ('{"type":"attach","ref":"q","stream":"STREAM"}', ("already_attached", "q", "stream")),
        (
            '{"type":"attach","ref":"q","stream":"STREAM","cursor":"x"}',
            ("bad_cursor", "q", "cursor"),
        ),
        (b"\x80", ("malformed_json", None, None)),
    ],
)
async def test_message_that_cannot_be_served_is_answered_and_ends_nothing(
    served: Served, message: str | bytes, expected: tuple[str, str | None, str | None]
) -> None:
    async with socket_to(served) as socket:
        opened = await socket.start("used")
        assert opened.stream is not None
        if isinstance(message, str):
            message = message.replace("STREAM", opened.stream)
        await socket.connection.send(message)
        assert await socket.refused() == expected
        served.backend.say(Verified("still here"))
        assert await socket.next() == Commit(stream=opened.stream, at=0, text="still here")


async def test_msgpack_socket_takes_binary_messages_only(served: Served) -> None:
    async with socket_to(served, MSGPACK) as socket:
        await socket.connection.send('{"type":"detach","ref":"q"}')
        assert (await socket.refused())[0] == "malformed_json"
        await socket.connection.send(b"\xc1")
        assert (await socket.refused())[0] == "malformed_json"
        await socket.start("a")


async def test_unknown_subprotocol_is_refused_in_the_handshake(served: Served) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with socket_to(served, "graphql-ws"):
            pass
    response = refused.value.response
    assert response.status_code == 400
    error = json.loads(response.body or b"")["error"]
    assert error["param"] == "Sec-WebSocket-Protocol"
    assert JSON in error["message"]
    assert MSGPACK in error["message"]


async def test_socket_carries_a_bounded_number_of_attachments() -> None:
    async with hand_served(limits__attachments_per_socket=2) as served, socket_to(served) as socket:
        first = await socket.start("a")
        await socket.start("b")
        await socket.send("start", ref="c", request={"prompt": "x"})
        assert (await socket.refused())[:2] == ("overloaded", "c")
        served.backend.say(Finished("stop"), stream=first.stream)
        assert isinstance(await socket.next(), Finish)
        await socket.start("c")


async def test_reader_is_served_while_a_start_waits_for_its_admission(served: Served) -> None:
    async with socket_to(served) as socket:
        opened = await socket.start("a", policy="hold")
        assert opened.stream is not None
        served.backend.admits.clear()
        await socket.send("start", ref="b", request={"prompt": "hi"})
        served.backend.say(Verified("text"))
        assert isinstance(await socket.next(), Commit)
        await socket.send("ack", ref="a", at=4)
        await socket.send("ack", ref="b", at=0)
        assert await socket.refused() == ("unknown_ref", "b", "ref")
        (reader,) = (await served.snapshot(opened.stream))["attachments"]
        assert reader["ack"] == "0.4"
        await socket.send("cancel", ref="a")
        assert isinstance(await socket.next(), Finish)
        await socket.send("detach", ref="a")
        await socket.send("ack", ref="a", at=4)
        assert await socket.refused() == ("unknown_ref", "a", "ref")
        await socket.send("start", ref="b", request={"prompt": "hi"})
        assert await socket.refused() == ("duplicate_ref", "b", "ref")
        served.backend.admits.set()
        late = await socket.next()
        assert isinstance(late, Open)
        assert late.ref == "b"


@pytest.mark.parametrize("withdraw", ["cancel", "detach"])
async def test_start_is_withdrawn_before_its_admission(served: Served, withdraw: str) -> None:
    async with socket_to(served) as socket:
        served.backend.admits.clear()
        await socket.send("start", ref="a", request={"prompt": "hi"})
        await served.backend.waiting.get()
        await socket.send(withdraw, ref="a")
        assert await socket.refused() == ("withdrawn", "a", None)
        served.backend.admits.set()
        opened = await socket.start("b")
        assert opened.ref == "b", "the withdrawn start began all the same"
        assert len(served.backend.requests) == 1


async def test_socket_that_closes_withdraws_its_starts() -> None:
    async with hand_served(limits__live_streams=1) as served:
        served.backend.admits.clear()
        async with socket_to(served) as socket:
            await socket.send("start", ref="a", request={"prompt": "hi"})
            await served.backend.waiting.get()
        async with socket_to(served) as socket:
            served.backend.admits.set()
            while True:  # until the server has seen the close
                await socket.send("start", ref="b", request={"prompt": "hi"})
                event = await socket.next()
                if isinstance(event, Open):
                    break
                assert isinstance(event, Error)
                assert event.code == "too_many_streams"
        assert len(served.backend.requests) == 1


async def test_socket_bounds_the_starts_that_wait() -> None:
    async with hand_served(limits__attachments_per_socket=2) as served, socket_to(served) as socket:
        served.backend.admits.clear()
        for ref in "abc":
            await socket.send("start", ref=ref, request={"prompt": "hi"})
        assert await socket.refused() == ("overloaded", "c", None)


async def test_socket_starts_a_bounded_number_of_streams_even_when_it_detaches() -> None:
    async with hand_served(limits__streams_per_socket=2) as served, socket_to(served) as socket:
        streams: list[str] = []
        for ref in "ab":
            opened = await socket.start(ref)
            streams.append(str(opened.stream))
            await socket.send("detach", ref=ref)
        await socket.send("start", ref="c", request={"prompt": "x"})
        assert (await socket.refused())[:2] == ("too_many_streams", "c")
        served.backend.say(Finished("stop"), stream=streams[0])
        await socket.start("c")


async def test_address_starts_and_reads_a_bounded_number_of_streams() -> None:
    limits = {"limits__streams_per_address": 2, "limits__attachments_per_address": 3}
    async with (
        hand_served(limits__exempt_addresses=(), **limits) as served,
        socket_to(served) as socket,
    ):
        first = await socket.start("a")
        second = await served.start()
        answer = await served.http.post("/v1/chat/completions", json=CHAT)
        assert answer.status_code == 429
        assert answer.json()["error"]["code"] == "rate_limit_exceeded"
        async with served.read(second) as one, served.read(second) as two:
            await one.next()
            await two.next()
            answer = await served.http.get(f"/v1/streams/{second}/events")
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "overloaded")
            served.backend.say(Finished("stop"), stream=first.stream)
            assert isinstance(await socket.next(), Finish)
            await socket.send("attach", ref="b", stream=second)
            assert isinstance(await socket.next(), Open)
            # There is room for one more stream, and none for its reader: nothing stays behind.
            headers = {"Accept": "text/event-stream"}
            for path, body in (("/v1/streams", {"prompt": "x"}), ("/v1/chat/completions", CHAT)):
                for _ in range(3):
                    answer = await served.http.post(path, json=body, headers=headers)
                    assert answer.json()["error"]["code"] == "overloaded"
            assert len(served.backend.cancelled) == 6


CHAT = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize("ref", ["r" * 129, "r" * 100_000])
async def test_ref_too_long_to_keep_is_refused_and_not_repeated(served: Served, ref: str) -> None:
    async with socket_to(served) as socket:
        await socket.send("start", ref=ref, request={"prompt": "hi"})
        assert await socket.refused() == ("invalid_value", None, "ref")


async def test_ref_of_an_ended_attachment_can_be_used_again(served: Served) -> None:
    async with socket_to(served) as socket:
        await socket.start("a")
        served.backend.say(Finished("stop"))
        assert isinstance(await socket.next(), Finish)
        await socket.start("a")


async def test_each_attachment_gets_its_own_heartbeats(served: Served) -> None:
    async with socket_to(served) as socket:
        streams = {(await socket.start(ref)).stream for ref in "ab"}
        served.clock.advance(15.0)
        beats = [await socket.next(), await socket.next()]
        assert all(isinstance(beat, Heartbeat) for beat in beats)
        assert {beat.stream for beat in beats} == streams


async def test_drafts_and_their_retraction_reach_the_reader(served: Served) -> None:
    async with socket_to(served) as socket:
        opened = await socket.start("a", policy="retract", include=["confidence"])
        served.backend.say(Drafted("maybe"))
        tentative = await socket.next()
        assert tentative == Tentative(stream=opened.stream, at=0, text="maybe")
        served.backend.say(Verified("no", cause="draft_rejected"))
        commit = await socket.next()
        assert isinstance(commit, Commit)
        assert commit.retract is not None
        assert (commit.retract.at, commit.retract.n) == (0, 5)


async def test_socket_is_told_of_the_shutdown_and_closed() -> None:
    async with hand_served() as served:
        url = f"{served.url.replace('http', 'ws', 1)}/v1/ws"
        connection = await connect(url, proxy=None)
        idle = await connect(url, proxy=None)
        socket = Socket(connection, JSON)
        await socket.start("a", policy="hold")
        served.backend.say(Verified("some"))
        assert isinstance(await socket.next(), Commit)
        leaving = asyncio.create_task(end_of(connection))
        idling = asyncio.create_task(end_of(idle))
    events, code = await leaving
    assert code == 1012
    (error,) = events
    assert isinstance(error, Error)
    assert (error.code, error.retryable, error.at) == ("shutting_down", True, 4)
    assert await idling == ([], 1012)


async def end_of(connection: ClientConnection) -> tuple[list[Any], int | None]:
    """The events until the connection closes, and its close code."""
    events: list[Any] = []
    try:
        while True:
            data = await asyncio.wait_for(connection.recv(), PATIENCE_S)
            events.append(decode_event_json(data))
    except ConnectionClosed as closed:
        return events, closed.rcvd.code if closed.rcvd else None


async def test_socket_that_is_of_no_use_is_closed() -> None:
    async with hand_served(limits__socket_idle_s=60.0) as served, socket_to(served) as socket:
        opened = await socket.start("a")
        for _ in range(5):  # reading is a use, however long nothing is said
            served.clock.advance(60.0)
            assert isinstance(await socket.next(), Heartbeat)
        served.backend.say(Finished("stop"), stream=opened.stream)
        assert isinstance(await socket.next(), Finish)
        await socket.send("ack", ref="a", at=0)
        await socket.send("detach", ref="nobody")
        assert (await socket.refused())[0] == "unknown_ref"
        served.clock.advance(59.0)  # a message is one too
        await socket.send("detach", ref="nobody")
        assert (await socket.refused())[0] == "unknown_ref"
        served.clock.advance(120.0)
        with pytest.raises(ConnectionClosed) as closed:
            await socket.next()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1000
        assert "no stream was read and no message came for 60 s" in closed.value.rcvd.reason
