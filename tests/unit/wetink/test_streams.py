"""Streams over SSE against canned answers: what each kind of interruption leads to."""

from __future__ import annotations

import hashlib
import json
import socket

import pytest

import wetink
from protocol.events import Commit, Error, Finish, Open
from tests.unit.wetink.servers import (
    answer,
    canned,
    event,
    event_stream,
    finish,
    opening,
    refusal,
)

pytestmark = pytest.mark.timeout(30)
AT_ONCE = wetink.Retry(attempts=3, first_s=0.0)
DIGEST = hashlib.sha256(b"Hello world").hexdigest()


async def read_all(stream: wetink.Stream) -> str:
    return "".join([text async for text in stream.committed()])


async def test_stream_is_read_to_its_finish() -> None:
    whole = event_stream(
        opening(seed=42),
        event("tentative", at=0, text="Hello wor"),
        event("commit", at=0, text="Hello "),
        event("commit", at=6, text="world"),
        finish(11, DIGEST),
    )
    async with canned(whole) as server:
        async with wetink.stream(server.url, prompt="hi", policy="retract", seed=42) as s:
            assert (s.id, s.model, s.seed, s.cursor) == ("s1", "m", 42, None)
            kinds = [type(e).__name__ async for e in s]
        assert kinds == ["Open", "Tentative", "Commit", "Commit", "Finish"]
        assert (s.view.committed, s.view.tail, s.complete) == ("Hello world", "", True)
        assert s.finish is not None
        assert server.requests == ["POST /v1/streams HTTP/1.1"]
        assert json.loads(server.bodies[0]) == {"prompt": "hi", "policy": "retract", "seed": 42}


async def test_stream_shows_the_tail_while_it_stands() -> None:
    frames = event_stream(
        opening(),
        event("tentative", at=0, text="Hello moon"),
        event("commit", at=0, text="Hello ", retract={"at": 6, "n": 4, "cause": "draft_rejected"}),
        event("commit", at=6, text="world"),
        finish(11, DIGEST),
    )
    async with canned(frames) as server, wetink.stream(server.url, prompt="hi") as s:
        texts = [s.text async for _ in s]
    assert texts == ["", "Hello moon", "Hello ", "Hello world", "Hello world"]


async def test_stream_resumes_at_its_cursor_after_a_drop() -> None:
    first = event_stream(
        opening(), event("commit", at=0, text="Hello "), event("tentative", at=6, text="wor")
    )
    second = event_stream(opening(6), event("commit", at=6, text="world"), finish(11, DIGEST))
    async with canned(first, second) as server:
        async with wetink.stream(server.url, prompt="hi", policy="hold", retry=AT_ONCE) as s:
            assert await read_all(s) == "Hello world"
        assert s.complete
        assert server.requests[1] == ("GET /v1/streams/s1/events?cursor=7.0.6&policy=hold HTTP/1.1")


async def test_stream_repeats_all_its_terms_when_it_resumes() -> None:
    second = event_stream(opening(0, offsets="utf-16"), finish(0, hashlib.sha256().hexdigest()))
    async with canned(event_stream(opening(offsets="utf-16")), second) as server:
        async with wetink.stream(
            server.url,
            prompt="hi",
            policy=wetink.Chunk(unit="word"),
            offsets="utf-16",
            include=["tokens", "timing"],
            retry=AT_ONCE,
        ) as s:
            await read_all(s)
        assert (
            "offsets=utf-16&cursor=7.0.0&policy=chunk%3Aword&include=tokens%2Ctiming"
            in (server.requests[1])
        )


async def test_stream_resumes_after_a_retryable_error() -> None:
    first = event_stream(
        opening(),
        event("commit", at=0, text="Hello "),
        event("error", code="slow_reader", message="too slow", retryable=True, at=6),
    )
    second = event_stream(opening(6), event("commit", at=6, text="world"), finish(11, DIGEST))
    async with (
        canned(first, second) as server,
        wetink.stream(server.url, prompt="hi", retry=AT_ONCE) as s,
    ):
        events = [e async for e in s]
    assert [type(e) for e in events] == [Open, Commit, Error, Open, Commit, Finish]
    assert s.view.committed == "Hello world"


async def test_stream_reattaches_when_it_finds_a_gap() -> None:
    first = event_stream(
        opening(), event("commit", at=0, text="Hello "), event("commit", at=9, text="ld")
    )
    second = event_stream(opening(6), event("commit", at=6, text="world"), finish(11, DIGEST))
    async with (
        canned(first, second) as server,
        wetink.stream(server.url, prompt="hi", retry=AT_ONCE) as s,
    ):
        assert await read_all(s) == "Hello world"


@pytest.mark.parametrize(
    ("status", "code"), [(503, "overloaded"), (429, "rate_limited"), (429, "too_many_connections")]
)
async def test_stream_waits_for_a_gateway_that_asks_for_time(status: int, code: str) -> None:
    first = event_stream(opening(), event("commit", at=0, text="Hello "))
    second = event_stream(opening(6), event("commit", at=6, text="world"), finish(11, DIGEST))
    asks_for_time = refusal(status, code, Retry_After="0")
    async with (
        canned(first, asks_for_time, answer(502), second) as server,
        wetink.stream(server.url, prompt="hi", retry=AT_ONCE) as s,
    ):
        assert await read_all(s) == "Hello world"


async def test_stream_gets_its_finish_when_it_was_cut_just_before_it() -> None:
    first = event_stream(opening(), event("commit", at=0, text="Hello world"))
    second = event_stream(opening(11), finish(11, DIGEST))
    async with (
        canned(first, second) as server,
        wetink.stream(server.url, prompt="hi", retry=AT_ONCE) as s,
    ):
        assert await read_all(s) == "Hello world"
        assert server.requests[1].startswith("GET /v1/streams/s1/events?cursor=7.0.11 ")
    assert s.complete
    assert s.finish is not None
    assert s.cursor == "7.0.11.finish"


async def test_stream_is_not_complete_when_204_comes_instead_of_finish() -> None:
    first = event_stream(opening(), event("commit", at=0, text="Hello world"))
    async with (
        canned(first, answer(204)) as server,
        wetink.stream(server.url, prompt="hi", retry=AT_ONCE) as s,
    ):
        with pytest.raises(wetink.ProtocolViolation):
            await read_all(s)
    assert not s.complete


async def test_stream_that_has_ended_is_not_resumed_though_its_request_may_be_repeated() -> None:
    body = event_stream(
        opening(),
        event("commit", at=0, text="Hello "),
        event("error", code="shutting_down", message="bye", retryable=True, ended=True, at=6),
    )
    async with canned(body) as server:
        async with wetink.stream(server.url, prompt="hi", retry=AT_ONCE) as s:
            with pytest.raises(wetink.StreamFailed) as failed:
                await read_all(s)
        assert len(server.requests) == 1
    assert (failed.value.code, failed.value.retryable) == ("shutting_down", True)


async def test_stream_gives_up_after_attempts_without_progress() -> None:
    nothing_new = event_stream(opening(6))
    first = event_stream(opening(), event("commit", at=0, text="Hello "))
    async with (
        canned(first, *[nothing_new] * 9) as server,
        wetink.stream(server.url, prompt="hi", retry=AT_ONCE) as s,
    ):
        with pytest.raises(
            wetink.ConnectionLost,
            match=r"^the connection was lost; gave up after 3 attempts to resume s.* s1 at 7\.0\.6",
        ):
            await read_all(s)
        assert len(server.requests) == 4
    assert s.view.committed == "Hello "
    assert not s.complete


async def test_stream_keeps_resuming_while_text_arrives() -> None:
    drops = [
        event_stream(opening(at), event("commit", at=at, text=letter))
        for at, letter in enumerate("Hello world")
    ]
    last = event_stream(opening(11), finish(11, DIGEST))
    async with (
        canned(*drops, last) as server,
        wetink.stream(server.url, prompt="hi", retry=AT_ONCE) as s,
    ):
        assert await read_all(s) == "Hello world"


async def test_stream_fails_with_the_servers_error() -> None:
    frames = event_stream(
        opening(),
        event("commit", at=0, text="Hello "),
        event("error", code="engine_failed", message="out of ink", retryable=False, at=6),
    )
    async with canned(frames) as server, wetink.stream(server.url, prompt="hi") as s:
        with pytest.raises(wetink.StreamFailed, match="out of ink") as caught:
            await read_all(s)
    assert (caught.value.code, caught.value.at) == ("engine_failed", 6)
    assert s.view.committed == "Hello "


async def test_stream_fails_when_the_gateway_forgot_the_stream() -> None:
    first = event_stream(opening(), event("commit", at=0, text="Hello "))
    async with (
        canned(first, refusal(410, "unknown_epoch", "cursor")) as server,
        wetink.stream(server.url, prompt="hi", retry=AT_ONCE) as s,
    ):
        with pytest.raises(wetink.StreamFailed, match="cannot be resumed") as caught:
            await read_all(s)
    assert caught.value.code == "unknown_epoch"


@pytest.mark.parametrize(
    "frames",
    [
        [event("tentative", at=0, text="Hallo"), event("commit", at=0, text="Hello")],
        [event("commit", at=0, text="Hello "), finish(6, "0" * 64)],
        [b"data: {not json}\n\n"],
        [opening(0)],
    ],
    ids=["unexplained rewrite", "wrong digest", "broken event", "open twice"],
)
async def test_stream_rejects_what_the_protocol_forbids(frames: list[bytes]) -> None:
    async with (
        canned(event_stream(opening(), *frames)) as server,
        wetink.stream(server.url, prompt="hi", retry=wetink.Retry(attempts=0)) as s,
    ):
        with pytest.raises(wetink.ProtocolViolation):
            await read_all(s)


async def test_stream_ignores_what_it_does_not_know() -> None:
    frames = event_stream(
        opening(novelty=1),
        event("telemetry", load=0.5),
        event("commit", at=0, text="Hello world", shade="blue"),
        finish(11, DIGEST),
    )
    async with canned(frames) as server, wetink.stream(server.url, prompt="hi") as s:
        assert await read_all(s) == "Hello world"


async def test_stream_yields_committed_text_of_the_wanted_kind_only() -> None:
    digest = hashlib.sha256(b"hmm42").hexdigest()
    frames = event_stream(
        opening(kind="reasoning"),
        event("commit", at=0, text="hmm"),
        event("part", part=1, kind="text"),
        event("commit", at=0, text="42"),
        finish(2, digest),
    )
    async with canned(frames) as server, wetink.stream(server.url, prompt="hi") as s:
        assert await read_all(s) == "42"
    assert [(part.kind, part.committed) for part in s.view.parts] == [
        ("reasoning", "hmm"),
        ("text", "42"),
    ]


async def test_stream_is_refused_with_the_gateways_reason() -> None:
    async with canned(refusal(400, "invalid_value", "policy")) as server:
        with pytest.raises(wetink.RequestRefused) as caught:
            await wetink.stream(server.url, prompt="hi", policy="nonsense").__aenter__()
    assert (caught.value.code, caught.value.param) == ("invalid_value", "policy")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": "hi", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "hi", "max_token": 5}, "max_token"),
        ({}, "prompt"),
    ],
)
def test_stream_refuses_what_no_gateway_takes(fields: dict[str, object], param: str) -> None:
    with pytest.raises(wetink.RequestRefused) as caught:
        wetink.stream("http://127.0.0.1:1", **fields)  # pyright: ignore[reportArgumentType]
    assert caught.value.param == param


async def test_stream_says_so_when_nobody_answers() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        with pytest.raises(wetink.Unreachable):
            await wetink.stream(url, prompt="hi").__aenter__()


async def test_stream_is_not_started_twice_when_the_answer_is_lost() -> None:
    async with canned(b"") as server:
        with pytest.raises(wetink.ConnectionLost) as caught:
            await wetink.stream(server.url, prompt="hi", retry=AT_ONCE).__aenter__()
        assert not isinstance(caught.value, wetink.Unreachable)
        assert len(server.requests) == 1


async def test_stream_says_so_when_the_server_is_no_gateway() -> None:
    page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\n<a/>"
    async with canned(page) as server:
        with pytest.raises(wetink.ProtocolViolation, match="is this a Wetink gateway"):
            await wetink.stream(server.url, prompt="hi").__aenter__()


async def test_attach_continues_the_text_its_caller_holds() -> None:
    rest = event_stream(opening(6), event("commit", at=6, text="world"), finish(11, DIGEST))
    async with canned(rest) as server:
        async with wetink.attach(server.url, "s1", cursor="7.0.6", held="Hello ") as s:
            assert await read_all(s) == "world"
        assert server.requests == ["GET /v1/streams/s1/events?cursor=7.0.6 HTTP/1.1"]
    assert s.view.committed == "Hello world"


async def test_attach_is_complete_at_once_with_the_cursor_of_a_reader_that_had_finish() -> None:
    async with (
        canned(answer(204)) as server,
        wetink.attach(server.url, "s1", cursor="7.0.6.finish") as s,
    ):
        assert [e async for e in s] == []
    assert s.complete
    assert s.id == "s1"


def test_attach_refuses_a_broken_cursor() -> None:
    with pytest.raises(wetink.RequestRefused) as caught:
        wetink.attach("http://127.0.0.1:1", "s1", cursor="7.0")
    assert caught.value.code == "bad_cursor"


async def test_cancel_is_repeated_on_resume_when_the_connection_was_down() -> None:
    """The first DELETE finds a dead connection; the stream is cancelled all the same."""
    first = event_stream(opening(), event("commit", at=0, text="Hello "))
    last = event_stream(opening(6), finish(6, hashlib.sha256(b"Hello ").hexdigest()))
    async with canned(first, b"", last, answer(204)) as server:
        async with wetink.stream(server.url, prompt="hi", retry=AT_ONCE) as s:
            await anext(s)
            with pytest.raises(wetink.ConnectionLost):
                await s.cancel()
            await read_all(s)
        assert [line.split()[0] for line in server.requests] == ["POST", "DELETE", "GET", "DELETE"]


async def test_ack_finds_no_way_back_over_an_event_stream() -> None:
    frames = event_stream(opening(), event("commit", at=0, text="Hello world"), finish(11, DIGEST))
    async with canned(frames) as server:
        async with wetink.stream(server.url, prompt="hi") as s:
            await read_all(s)
            assert await s.ack(11) is False
        assert len(server.requests) == 1


def test_retry_waits_longer_each_time_up_to_its_bound() -> None:
    retry = wetink.Retry(first_s=1.0, longest_s=4.0)
    for attempt, bound in [(1, 0.0), (2, 1.0), (3, 2.0), (4, 4.0), (9, 4.0)]:
        assert all(0.0 <= retry.delay(attempt) <= bound for _ in range(50))
    assert retry.delay(1, retry_after=2.0) == 2.0
    assert retry.delay(2, retry_after=3600.0) == 4.0
