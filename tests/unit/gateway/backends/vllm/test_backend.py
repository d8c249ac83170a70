from __future__ import annotations

import asyncio
import re
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
import pytest
import zmq

from gateway.backends.base import DraftsState, Finished
from gateway.backends.vllm import VllmBackend
from gateway.backends.vllm.messages import VERSION, Frame, Update
from gateway.config.upstreams import UpstreamConfig
from protocol.errors import RequestError
from protocol.requests import GenerationRequest
from tests.unit.gateway.backends.vllm.telling import update
from tests.unit.gateway.backends.vllm.test_joined import Reader
from tests.upstreams.fake import Fault, Kind, fake_upstream, whole_text

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

    from tests.upstreams.fake import FakeUpstream

PATIENCE_S = 30.0
SEED = 7
SAID = 3
"""Words that the upstream says before it waits to be hung up on."""
TEXT = whole_text(SEED)


class Plugin:
    """An engine that publishes what a test says."""

    def __init__(self, name: str = "engine") -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind("tcp://127.0.0.1:*")
        self.endpoint: str = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._name = name
        self._seq = 0

    def publish(self, *updates: Update, lost: int = 0, greedy_only: bool = False) -> None:
        self._seq += 1 + lost
        frame = Frame(
            v=VERSION,
            engine=self._name,
            seq=self._seq,
            missed=0,
            greedy_only=greedy_only,
            updates=list(updates),
        )
        self._socket.send(msgspec.msgpack.encode(frame))

    def close(self) -> None:
        self._socket.close()
        self._context.term()


@asynccontextmanager
async def upstream_that_waits() -> AsyncGenerator[FakeUpstream]:
    async with fake_upstream(deque([Fault(Kind.STALL, SAID)])) as upstream:
        yield upstream


@asynccontextmanager
async def running(*urls: str, drafts: list[str]) -> AsyncGenerator[VllmBackend]:
    backend = VllmBackend(UpstreamConfig(urls=list(urls), drafts=drafts))
    async with asyncio.timeout(PATIENCE_S):
        await backend.start()
        try:
            yield backend
        finally:
            await backend.stop()


async def until(holds: Callable[[], bool], meanwhile: Callable[[], None] = lambda: None) -> None:
    """Lets the event loop go on until it holds; the test's own limit ends a vain wait."""
    while not holds():
        meanwhile()
        await asyncio.sleep(0.01)


def request(**fields: object) -> GenerationRequest:
    raw = {"model": "m", "prompt": "Say it?", "seed": SEED, "temperature": 0.0, **fields}
    return msgspec.convert(raw, GenerationRequest)


def name_of_last(upstream: FakeUpstream) -> str:
    found = re.search(r"X-Request-Id: (\S+)", upstream.headers[-1])
    assert found is not None
    return found[1]


@pytest.fixture
def plugin() -> Iterator[Plugin]:
    made = Plugin()
    yield made
    made.close()


async def test_backend_shows_the_drafts_of_its_request_behind_the_upstreams_text(
    plugin: Plugin,
) -> None:
    async with (
        upstream_that_waits() as upstream,
        running(upstream.url, drafts=[plugin.endpoint]) as backend,
    ):
        await until(lambda: bool(backend.engines), plugin.publish)
        reader = Reader()
        await backend.generate("s", request(), reader.accept, want_drafts=True)
        begin = "".join(re.findall(" ?[^ ]+", TEXT)[:SAID])
        await until(lambda: reader.text == begin)
        other = msgspec.structs.replace(update(0, begin, " lie"), request="wetink-" + "0" * 32)
        mine = msgspec.structs.replace(update(0, begin, " draft"), request=name_of_last(upstream))
        plugin.publish(other, mine)
        await until(lambda: reader.tail != "")
        assert reader.tail == " draft"
        backend.cancel("s")
        assert isinstance(reader.events[-1], Finished)
        assert reader.text == begin
        plugin.publish(mine, lost=2)
        lost = DraftsState(engines=1, lost_frames=2, missed_steps=0)
        await until(lambda: backend.upstreams()[0].drafts == lost)
        assert isinstance(reader.events[-1], Finished)


async def test_backend_passes_text_on_where_no_plugin_is_heard(plugin: Plugin) -> None:
    async with (
        fake_upstream() as upstream,
        running(upstream.url, drafts=[plugin.endpoint]) as backend,
    ):
        reader = Reader()
        await backend.generate("s", request(), reader.accept, want_drafts=True)
        await until(lambda: isinstance(reader.events[-1], Finished))
        assert reader.text == TEXT
        assert backend.engines == []


async def test_backend_refuses_to_sample_where_drafts_corrupt_sampled_text(
    plugin: Plugin,
) -> None:
    async with (
        fake_upstream() as upstream,
        running(upstream.url, drafts=[plugin.endpoint]) as backend,
    ):
        await until(lambda: bool(backend.engines), lambda: plugin.publish(greedy_only=True))
        for temperature in (0.7, None):
            with pytest.raises(RequestError, match="without Triton"):
                await backend.generate("s", request(temperature=temperature), Reader().accept)
        await backend.generate("s", request(), Reader().accept)


async def test_backend_begins_though_its_plugin_speaks_another_version(
    caplog: pytest.LogCaptureFixture,
) -> None:
    context = zmq.Context()
    socket = context.socket(zmq.PUB)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    async with (
        fake_upstream() as upstream,
        running(upstream.url, drafts=[f"tcp://127.0.0.1:{port}"]) as backend,
    ):
        newer = msgspec.msgpack.encode({"v": VERSION + 1})
        await until(lambda: "cannot be read" in caplog.text, lambda: socket.send(newer))
        reader = Reader()
        await backend.generate("s", request(), reader.accept, want_drafts=True)
        await until(lambda: isinstance(reader.events[-1], Finished))
        assert reader.text == TEXT
    assert caplog.text.count("cannot be read") == 1
    socket.close()
    context.term()
