"""The engine fails at random moments under many readers: none of them loses or repeats anything.

Real processes, the embedded model, SSE and WebSocket side by side. `make test` runs one moment of
each kind, `make test-heavy` fifty in all.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
from typing import TYPE_CHECKING, NamedTuple

import httpx
import pytest
import pytest_asyncio

import wetink
from gateway.backends.local import LocalBackend
from gateway.config import EngineConfig, GatewayConfig, SupervisionConfig
from gateway.server import running_server
from protocol.events import Commit, Open, Retract

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from wetink.client import TransportName

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

STREAMS = 16
TOKENS = 24
HEAVY_MOMENTS = 50
POLICIES: tuple[str | wetink.StreamRetract | wetink.Chunk, ...] = (
    "hold",
    "retract",
    "chunk:sentence",
    wetink.Chunk(unit="word", tail=True),
    wetink.StreamRetract(max_tail=5, grapheme_safe=True),
)
PROMPT_POLICIES = ("hold", "retract")
"""They commit what is verified, when it is."""
HUNGRY = {"kind": "regex", "pattern": "(" + "|".join(f"[a-z]{{{n}}}" for n in range(90)) + ")"}
"""A grammar to compile takes memory, which an engine may not have any more."""
LIMITS = SupervisionConfig(max_restarts=1_000_000, restart_delay_s=0.0)
"""As patient as a gateway is by default: on a busy machine an engine can be off the processor for
seconds, and one that is killed for it is followed by another that has to load first, and so on."""


class Read(NamedTuple):
    text: str
    completion_tokens: int
    cached_prompt_tokens: int
    restarts_seen: int
    """Retractions because of a restart."""


@pytest.fixture(scope="module")
def backend() -> LocalBackend:
    engine = EngineConfig(
        adaptive_draft=False, draft_length=4, kv_memory_mib=64, context_length=256
    )
    return LocalBackend(engine, LIMITS)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(backend: LocalBackend) -> AsyncGenerator[str]:
    config = GatewayConfig.load(overrides={"server.port": 0}, env={})
    async with (
        running_server(config, backend) as base,
        httpx.AsyncClient(base_url=base, timeout=None) as http,  # the test's own limit holds
    ):
        await engine_runs(http)
        yield base


async def engine_runs(http: httpx.AsyncClient) -> None:
    # Readiness is polled, as an operator's probe does.
    while (await http.get("/readyz")).status_code != 200:  # noqa: ASYNC110
        await asyncio.sleep(0.05)


class Readers:
    """Sixteen streams with different prompts, seeds, temperatures, policies and transports."""

    def __init__(self, url: str) -> None:
        self.progress = 0
        """Code points committed to those of the readers that a policy keeps waiting least."""
        self._opened = 0
        self._url = url
        self._moved = asyncio.Event()

    async def read_all(self) -> list[Read]:
        return await asyncio.gather(*(self._read(number) for number in range(STREAMS)))

    async def at(self, progress: int) -> None:
        """Returns once all streams have begun and so much has been read of them."""
        while self._opened < STREAMS or self.progress < progress:
            self._moved.clear()
            await self._moved.wait()

    async def _read(self, number: int) -> Read:
        transport: TransportName = "ws" if number % 2 else "sse"
        policy = POLICIES[number % len(POLICIES)]
        restarts = 0
        reading = wetink.stream(
            self._url,
            messages=[{"role": "user", "content": f"Count from {number} to {number + 20}."}],
            temperature=0.8 * (number % 3 > 0),
            seed=100 + number,
            max_tokens=TOKENS,
            ignore_eos=True,
            policy=policy,
            transport=transport,
        )
        async with reading:
            async for event in reading:
                match event:
                    case Commit(text=text, retract=retraction):
                        self.progress += len(text) if policy in PROMPT_POLICIES else 0
                        restarts += retraction is not None and retraction.cause == "engine_restart"
                    case Retract(cause=cause):
                        restarts += cause == "engine_restart"
                    case Open():
                        self._opened += 1
                    case _:
                        pass
                self._moved.set()
        # `complete`: there was a `finish`, and its digest is that of the text.
        assert reading.complete
        assert reading.usage is not None
        usage = reading.usage
        return Read(reading.text, usage.completion_tokens, usage.cached_prompt_tokens, restarts)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)


def starve(pid: int) -> None:
    """No more memory than it has: whatever it asks the kernel for from now on is refused."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_AS)
    resource.prlimit(pid, resource.RLIMIT_AS, (1 << 20, hard))


FAULTS: dict[str, Callable[[int], None]] = {"kill": kill, "stop": stop, "starve": starve}


async def strike(url: str, backend: LocalBackend, fault: str, progress: int) -> list[Read]:
    """All streams from begin to end, with one fault in between."""
    async with httpx.AsyncClient(base_url=url, timeout=None) as http:
        await engine_runs(http)
    readers = Readers(url)
    reading = asyncio.create_task(readers.read_all())
    arriving = asyncio.create_task(readers.at(progress))
    await asyncio.wait([reading, arriving], return_when=asyncio.FIRST_COMPLETED)
    arriving.cancel()
    # One that had to wait for the processor too long may have failed by itself.
    while (pid := backend.engine_pid) is None:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    FAULTS[fault](pid)
    if fault == "starve":
        await devour(url)
    return await reading


async def devour(url: str) -> None:
    """A request that an engine without memory dies of; the next one has what it takes."""
    body = {"prompt": "ink", "grammar": HUNGRY, "max_tokens": 1}
    async with httpx.AsyncClient(base_url=url, timeout=None) as http:
        answer = await http.post("/v1/streams", json=body)
    assert answer.status_code == 201


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def undisturbed(url: str) -> tuple[list[Read], int]:
    """What the streams say, and how far they get."""
    readers = Readers(url)
    read = await readers.read_all()
    return read, readers.progress


def moments(count: int) -> list[tuple[str, int, float]]:
    """Fault, number, and the part of the text that has been read by then."""
    chance = random.Random(7)
    kinds = list(FAULTS)
    return [(kinds[n % len(kinds)], n, chance.uniform(0.0, 0.9)) for n in range(count)]


async def endure(
    url: str, backend: LocalBackend, undisturbed: tuple[list[Read], int], fault: str, part: float
) -> None:
    expected, whole = undisturbed
    before, restarts = backend.engine_pid, backend.load().engine_restarts
    read = await strike(url, backend, fault, round(part * whole))
    assert [each.text for each in read] == [each.text for each in expected]
    assert [each.completion_tokens for each in read] == [TOKENS] * STREAMS
    restarts = backend.load().engine_restarts - restarts
    assert all(each.restarts_seen <= restarts for each in read)
    # On a busy machine it may have said all before, so that no reader waits for the next one.
    while backend.engine_pid in (before, None):  # noqa: ASYNC110
        await asyncio.sleep(0.05)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("fault", "number", "part"), moments(3))
async def test_readers_end_with_the_same_text_when_the_engine_fails(
    url: str,
    backend: LocalBackend,
    undisturbed: tuple[list[Read], int],
    fault: str,
    number: int,
    part: float,
) -> None:
    await endure(url, backend, undisturbed, fault, part)


@pytest.mark.heavy
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("fault", "number", "part"), moments(HEAVY_MOMENTS)[3:])
async def test_readers_end_with_the_same_text_at_every_one_of_many_moments(
    url: str,
    backend: LocalBackend,
    undisturbed: tuple[list[Read], int],
    fault: str,
    number: int,
    part: float,
) -> None:
    await endure(url, backend, undisturbed, fault, part)
