"""One upstream over real connections; faults in the middle: tests/upstreams."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING

import pytest

from gateway.backends.base import Failed, Finished
from gateway.backends.openai import OpenAIBackend
from gateway.config.upstreams import UpstreamConfig
from gateway.errors import BackendError, ConfigError
from protocol.errors import ErrorCode, RequestError
from tests.unit.wetink.servers import canned
from tests.upstreams.fake import Fault, Kind, fake_upstream, whole_text
from tests.upstreams.reading import Reading, running, said
from tests.upstreams.slowed import slowed

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "sk-very-secret"


def faults(*kinds: Kind | None) -> deque[Fault | None]:
    return deque(None if kind is None else Fault(kind, 0) for kind in kinds)


async def test_backend_learns_models_dialect_and_context() -> None:
    async with fake_upstream(owner="vllm") as fake, running(fake.url) as backend:
        (model,) = backend.models()
        assert (model.id, model.context_length) == ("m", 1000)
        assert backend.upstreams()[0].dialect == "vllm"
        assert backend.ready


async def test_backend_learns_models_whose_list_comes_in_pieces() -> None:
    async with (
        fake_upstream() as fake,
        slowed(fake.url, first_s=0.0, piece_s=0.005, piece_bytes=32) as slow,
        running(slow) as backend,
    ):
        assert [model.id for model in backend.models()] == ["m"]


async def test_client_is_told_a_refusal_that_comes_in_pieces() -> None:
    refusals = faults(Kind.ERROR_500)
    async with (
        fake_upstream(refusals) as fake,
        slowed(fake.url, first_s=0.0, piece_s=0.005, piece_bytes=32) as slow,
        running(slow, retries=0) as backend,
    ):
        refused = (await said(backend, 7)).refused
    assert refused is not None and "a worker died" in refused.message


async def test_backend_waits_for_an_upstream_that_comes_later() -> None:
    async with fake_upstream() as fake:
        port = int(fake.url.split(":")[2].split("/")[0])
    backend = OpenAIBackend(UpstreamConfig(url=f"http://127.0.0.1:{port}"))
    starting = asyncio.create_task(backend.start())
    await asyncio.sleep(0)
    assert not backend.ready
    late = type(fake)()
    await late.listen(port)
    try:
        await starting
        assert backend.ready
    finally:
        await backend.stop()
        await late.close()


async def test_backend_says_usage_and_seed() -> None:
    async with fake_upstream() as fake, running(fake.url) as backend:
        reading = await said(backend, 4)
        assert reading.text == whole_text(4)
        assert isinstance(reading.end, Finished)
        assert (reading.end.counts.prompt, reading.end.counts.completion) == (3, 24)
        assert fake.bodies[0]["seed"] == 4


async def test_connections_are_used_again() -> None:
    async with fake_upstream() as fake, running(fake.url) as backend:
        for seed in range(5):
            await said(backend, seed)
        assert fake.connections == 1


@pytest.mark.parametrize("kind", [Kind.ERROR_500, Kind.BUSY, Kind.NO_STREAM, Kind.RESET])
async def test_request_is_tried_again_before_its_first_text(kind: Kind) -> None:
    async with fake_upstream(faults(kind)) as fake, running(fake.url) as backend:
        reading = await said(backend, 1)
        assert reading.text == whole_text(1)
        assert len(fake.bodies) == 2


async def test_request_that_keeps_failing_is_refused_by_name() -> None:
    async with (
        fake_upstream(faults(Kind.ERROR_500, Kind.ERROR_500)) as fake,
        running(fake.url, retries=1) as backend,
    ):
        refused = (await said(backend, 1)).refused
        assert isinstance(refused, BackendError)
        assert (refused.code, refused.retryable) == (ErrorCode.ENGINE_FAILED, True)
        assert "a worker died" in refused.message


async def test_client_is_told_of_a_retry_after_that_is_too_long_to_wait_for() -> None:
    async with (
        fake_upstream(faults(Kind.BUSY)) as fake,
        running(fake.url, longest_retry_after_s=5) as backend,
    ):
        fake.retry_after = "30"
        refused = (await said(backend, 1)).refused
        assert isinstance(refused, RequestError)
        assert (refused.code, refused.retry_after_s) == (ErrorCode.RATE_LIMITED, 30.0)
        assert len(fake.bodies) == 1
        again = (await said(backend, 1)).refused
        assert again is not None and again.code is ErrorCode.RATE_LIMITED
        assert len(fake.bodies) == 1, "it said when it may be asked again"


async def test_requests_go_to_the_server_with_the_fewest_under_way() -> None:
    async with (
        fake_upstream(deque([Fault(Kind.STALL, 5)])) as one,
        fake_upstream(deque([Fault(Kind.STALL, 5)])) as two,
        running(one.url, two.url, stall_s=60) as backend,
    ):
        reading = Reading()
        stalled = asyncio.create_task(said(backend, 0, stream="stalled", reading=reading))
        await reading.begun.wait()
        free = two if one.bodies else one
        free.faults.clear()
        for seed in range(4):
            await said(backend, seed)
        assert len(free.bodies) == 4
        backend.cancel("stalled")
        assert isinstance((await stalled).end, Finished)


async def test_requests_beyond_what_servers_may_have_are_turned_away() -> None:
    async with (
        fake_upstream(deque([Fault(Kind.STALL, 5)])) as fake,
        running(fake.url, stall_s=60, max_outstanding=1, retries=0) as backend,
    ):
        assert backend.places == 1
        reading = Reading()
        stalled = asyncio.create_task(said(backend, 0, stream="stalled", reading=reading))
        await reading.begun.wait()
        refused = (await said(backend, 1)).refused
        assert refused is not None and refused.code is ErrorCode.OVERLOADED
        backend.cancel("stalled")
        await stalled


async def test_cancelling_ends_the_stream_and_hangs_up() -> None:
    async with (
        fake_upstream(deque([Fault(Kind.STALL, 5)])) as fake,
        running(fake.url, stall_s=60) as backend,
    ):
        reading = Reading()
        stream = asyncio.create_task(said(backend, 1, reading=reading))
        await reading.begun.wait()
        hung_up = asyncio.create_task(fake.hung_up())
        await asyncio.sleep(0)
        backend.cancel("s")
        backend.cancel("s")
        ended = await stream
        assert isinstance(ended.end, Finished) and ended.end.reason == "cancelled"
        await asyncio.wait_for(hung_up, 10)
        assert whole_text(1).startswith(ended.text)


async def test_stopping_ends_streams_with_shutting_down() -> None:
    async with (
        fake_upstream(deque([Fault(Kind.STALL, 5)])) as fake,
        running(fake.url, stall_s=60) as backend,
    ):
        reading = Reading()
        stream = asyncio.create_task(said(backend, 1, reading=reading))
        await reading.begun.wait()
        await backend.stop()
        ended = (await stream).end
        assert isinstance(ended, Failed)
        assert (ended.code, ended.retryable) == (ErrorCode.SHUTTING_DOWN, True)


async def test_repeated_stream_that_says_something_else_ends_with_an_error() -> None:
    async with (
        fake_upstream(deque([Fault(Kind.RESET, 20)])) as fake,
        running(fake.url, continuation=["repeat"]) as backend,
    ):
        fake.forgets_seeds = True
        reading = await said(backend, 1)
        assert isinstance(reading.end, Failed) and reading.end.retryable
        assert "asked again" in reading.end.message
        assert backend.continued["mismatch"] == 1


async def test_key_is_sent_and_said_nowhere(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("UPSTREAM_KEY", SECRET)
    async with (
        fake_upstream(faults(Kind.ERROR_500, Kind.RESET)) as fake,
        running(fake.url, key_variable="UPSTREAM_KEY") as backend,
    ):
        await said(backend, 1)
        assert all(f"Authorization: Bearer {SECRET}" in head for head in fake.headers)
        assert SECRET not in str(backend.upstreams()) + repr(backend.config)
    assert SECRET not in caplog.text


async def test_key_that_an_upstream_says_again_is_not_passed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", SECRET)
    models = http_answer("200 OK", '{"data": [{"id": "m"}]}')
    echo = http_answer("400 No", f'{{"error": {{"message": "no good: Bearer {SECRET}"}}}}')
    async with (
        canned(models, echo) as server,
        running(server.url, key_variable="UPSTREAM_KEY") as backend,
    ):
        refused = (await said(backend, 1)).refused
    assert isinstance(refused, RequestError)
    assert refused.message.endswith("no good: Bearer [key]")


def http_answer(status: str, body: str) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


@pytest.mark.parametrize("content", ["", "two words", "schlüssel"])
async def test_file_without_a_key_is_refused_and_not_quoted(tmp_path: Path, content: str) -> None:
    file = tmp_path / "key"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match="key_file") as refused:
        OpenAIBackend(UpstreamConfig(url="http://a", key_file=str(file)))
    assert not content or content not in str(refused.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        OpenAIBackend(UpstreamConfig(url="http://a", key_file=str(tmp_path / "none")))
    with pytest.raises(ConfigError, match="NO_SUCH_VARIABLE is not set"):
        OpenAIBackend(UpstreamConfig(url="http://a", key_variable="NO_SUCH_VARIABLE"))
