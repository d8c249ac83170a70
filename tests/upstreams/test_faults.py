"""Upstreams that fail at random: every stream ends with the whole text or an explicit error."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections import deque
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from gateway.backends.base import Failed, Finished
from tests.upstreams.fake import LENGTH, Fault, Kind, fake_upstream, whole_text
from tests.upstreams.reading import PATIENCE_S, Reading, running, said

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

STREAMS = 500
FAULTS = 200
AT_ONCE = 50


def random_faults(seed: int) -> deque[Fault | None]:
    chance = random.Random(seed)
    faults: list[Fault | None] = [
        Fault(chance.choice(list(Kind)), chance.randint(0, LENGTH)) for _ in range(FAULTS)
    ]
    faults += [None] * (STREAMS - FAULTS)
    chance.shuffle(faults)
    return deque(faults)


def judged(reading: Reading, seed: int) -> str:
    """How it ended; fails where it did so in silence, or said what it should not."""
    text = whole_text(seed)
    match reading.end:
        case Finished(reason=reason):
            assert reason == "stop"
            assert reading.text == text
            return "whole"
        case Failed():
            assert reading.end.message and reading.end.code
            assert text.startswith(reading.text)
            return "failed"
        case None:
            assert reading.refused is not None and reading.refused.message
            assert reading.text == ""
            return "refused"


@pytest.mark.parametrize(
    ("chat", "owner", "continuation"),
    [
        (False, "fake", ["prefix"]),
        (True, "fake", ["repeat"]),
        pytest.param(True, "vllm", ["prefix"], marks=pytest.mark.heavy),
        pytest.param(False, "fake", [], marks=pytest.mark.heavy),
    ],
    ids=["raw prompts go on", "chats are repeated", "chats go on", "nothing goes on"],
)
async def test_streams_end_whole_or_with_an_error_whatever_befalls_their_upstream(
    chat: bool, owner: str, continuation: list[str]
) -> None:
    faults = random_faults(len(owner) + chat)
    async with (
        fake_upstream(faults, owner=owner) as one,
        fake_upstream(faults, owner=owner) as two,
        fake_upstream(faults, owner=owner) as three,
        running(
            one.url, two.url, three.url, continuation=continuation, max_continuations=8, retries=6
        ) as backend,
    ):
        turn = asyncio.Semaphore(AT_ONCE)

        async def one_stream(seed: int) -> Reading:
            async with turn:
                return await said(backend, seed, stream=f"s{seed}", chat=chat)

        readings = await asyncio.gather(*[one_stream(seed) for seed in range(STREAMS)])
        while faults:  # streams that were refused at once met none
            readings.append(await said(backend, len(readings), chat=chat))
        state = backend.upstreams()[0]
    ends = [judged(reading, seed) for seed, reading in enumerate(readings)]
    assert sum(sum(server.failures.values()) for server in state.servers) >= FAULTS
    assert all(server.outstanding == 0 for server in state.servers)
    if continuation:
        assert state.continued[continuation[0]] > FAULTS / 4
        assert "mismatch" not in state.continued
        # A fault that kills a server befalls all its streams; some meet more than they may.
        assert ends.count("whole") > STREAMS * 0.8
    else:
        assert ends.count("failed") > FAULTS / 4


@asynccontextmanager
async def upstream_process(port: int = 0) -> AsyncGenerator[tuple[str, asyncio.subprocess.Process]]:
    """Its URL, and what can be killed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.upstreams.fake", str(port)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().strip(), process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("continuation", [["prefix"], ["repeat"]])
async def test_streams_go_on_elsewhere_when_their_upstream_is_killed(
    continuation: list[str],
) -> None:
    async with AsyncExitStack() as stack:
        (one, victim), (two, survivor) = [
            await stack.enter_async_context(upstream_process()) for _ in range(2)
        ]
        backend = await stack.enter_async_context(
            running(
                one, two, continuation=continuation, stall_s=PATIENCE_S, first_byte_s=PATIENCE_S
            )
        )
        watched = [Reading() for _ in range(40)]
        streams = [
            asyncio.create_task(said(backend, seed, stream=f"s{seed}", reading=reading))
            for seed, reading in enumerate(watched)
        ]
        for reading in watched:
            await reading.begun.wait()
        victim.send_signal(signal.SIGKILL)
        assert survivor.stdin is not None
        survivor.stdin.write(b"\n")
        readings = await asyncio.gather(*streams)
        state = backend.upstreams()[0]
    assert [judged(reading, seed) for seed, reading in enumerate(readings)] == ["whole"] * 40
    assert state.servers[0].failures["engine_unavailable"] > 0
    assert state.servers[0].last_failure is not None
    assert sum(state.continued.values()) > 0
