"""Readers of a real vLLM see its drafts, and its text stays what it is without the plugin."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

import httpx
import pytest
import pytest_asyncio

from gateway.backends.vllm import VllmBackend
from gateway.config.upstreams import UpstreamConfig
from protocol.events import Commit, Error, Finish, Tentative
from protocol.receiver import Receiver
from tests.server.gateways import Reader, serving
from tests.upstreams.vllm.server import MODEL, WITH_PLUGIN, Running, installed_plugin, vllm

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from protocol.events import ServerEvent

pytestmark = [pytest.mark.upstreams, pytest.mark.asyncio(loop_scope="module")]

SENTENCE = (
    "The quick brown fox jumps over the lazy dog while seven wizards brew potions in the tower."
)
CODE = "def add(a, b):\n    return a + b\n\n\ndef sub(a, b):\n    return a - b\n"
REQUESTS: list[dict[str, object]] = [
    {"prompt": f"{SENTENCE} {SENTENCE} {SENTENCE}", "max_tokens": 60},
    {"prompt": f"{CODE}\n\n{CODE}\n\n{CODE[:20]}", "max_tokens": 60},
    {"prompt": "Smile: 😀👩‍🚒 née 😀👩‍🚒 née 😀👩‍🚒 née", "max_tokens": 40},
    {"prompt": f"{SENTENCE} {SENTENCE}", "max_tokens": 60, "stop": ["wizards brew", "\n\n\n"]},
    {
        "messages": [{"role": "user", "content": f"Repeat three times: {SENTENCE}"}],
        "max_tokens": 80,
    },
]


class Read(NamedTuple):
    text: str
    events: list[ServerEvent]

    @property
    def drafts(self) -> int:
        return sum(isinstance(event, Tentative) for event in self.events)

    @property
    def end(self) -> ServerEvent:
        return self.events[-1]


async def read(http: httpx.AsyncClient, **request: object) -> Read:
    """Every event is held against the protocol's rules, the digest included."""
    answer = await http.post("/v1/streams", json={"temperature": 0, **request})
    assert answer.status_code == 201, answer.text
    stream = answer.json()["stream"]
    receiver = Receiver()
    events: list[ServerEvent] = []
    path = f"/v1/streams/{stream}/events"
    async with http.stream("GET", path, params={"policy": "retract"}, timeout=120) as response:
        for framed in await Reader(response).to_end():
            receiver.receive(framed.event)
            events.append(framed.event)
    return Read("".join(event.text for event in events if isinstance(event, Commit)), events)


@pytest.fixture(scope="module")
def own_texts() -> list[str]:
    """What vLLM says to the requests without the plugin, read from it directly."""
    with vllm(name="vllm-plain") as plain, httpx.Client(timeout=120, trust_env=False) as http:
        texts: list[str] = []
        for request in REQUESTS:
            path = "/chat/completions" if "messages" in request else "/completions"
            body = {"model": MODEL, "temperature": 0, "seed": 1, **request}
            choice = http.post(plain.url + path, json=body).json()["choices"][0]
            texts.append(choice["text"] if "text" in choice else choice["message"]["content"])
        return texts


@pytest.fixture(scope="module")
def engine(own_texts: list[str]) -> Iterator[Running]:
    """After the other: one at a time."""
    del own_texts
    with vllm(*WITH_PLUGIN, plugin=installed_plugin(), name="vllm-plugin") as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(engine: Running) -> AsyncGenerator[tuple[VllmBackend, httpx.AsyncClient]]:
    backend = VllmBackend(UpstreamConfig(url=engine.url, drafts=[engine.drafts]))
    async with serving(backend) as (_, http):
        async with asyncio.timeout(60):
            # What is waited for happens in another process.
            while not backend.engines or not backend.ready:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        yield backend, http


async def test_reader_sees_drafts_and_exactly_vllms_own_text(
    gateway: tuple[VllmBackend, httpx.AsyncClient], own_texts: list[str]
) -> None:
    _, http = gateway
    for request, own in zip(REQUESTS, own_texts, strict=True):
        got = await read(http, seed=1, **request)
        assert got.text == own
        assert isinstance(got.end, Finish)
        assert got.drafts > 0
        assert got.end.usage.drafted_tokens > 0


async def test_readers_see_drafts_side_by_side(
    gateway: tuple[VllmBackend, httpx.AsyncClient],
) -> None:
    _, http = gateway
    got = await asyncio.gather(*(read(http, **request) for request in REQUESTS))
    assert all(isinstance(one.end, Finish) and one.drafts > 0 for one in got)


async def test_reader_is_refused_a_temperature_that_this_vllm_would_corrupt(
    gateway: tuple[VllmBackend, httpx.AsyncClient],
) -> None:
    backend, http = gateway
    assert all(engine.greedy_only for engine in backend.engines)
    body = {"prompt": "hi", "temperature": 0.7, "max_tokens": 4}
    answer = await http.post("/v1/streams", json=body)
    assert answer.status_code == 400
    assert "without Triton" in answer.text


async def test_plugins_entry_point_is_loaded(engine: Running) -> None:
    log = engine.log.read_text(encoding="utf-8")
    assert f"wetink: drafts are published on {engine.drafts}" in log
    assert "Failed to load plugin" not in log


async def test_reader_is_told_when_vllm_is_killed_in_mid_stream(
    gateway: tuple[VllmBackend, httpx.AsyncClient], engine: Running, own_texts: list[str]
) -> None:
    """Last: nothing answers after it."""
    _, http = gateway
    request = REQUESTS[1] | {"max_tokens": 1500, "ignore_eos": True}
    answer = await http.post("/v1/streams", json={"temperature": 0, "seed": 1, **request})
    path = f"/v1/streams/{answer.json()['stream']}/events"
    receiver = Receiver()
    async with http.stream("GET", path, params={"policy": "retract"}, timeout=120) as response:
        reader = Reader(response)
        while not receiver.tail or len(receiver.committed) < 40:
            receiver.receive((await reader.next()).event)
        engine.kill()
        events = [framed.event for framed in await reader.to_end()]
    for event in events:
        receiver.receive(event)
    assert isinstance(events[-1], Error)
    assert events[-1].ended
    same = min(len(receiver.committed), len(own_texts[1]))
    assert same >= 40
    assert receiver.committed[:same] == own_texts[1][:same]
