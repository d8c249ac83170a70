"""Readers come, cancel and go, a thousand times; then everything is as it was."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

import wetink
from gateway.backends.local import LocalBackend
from gateway.config import EngineConfig, GatewayConfig
from gateway.server import running_server

CYCLES = int(os.environ.get("WETINK_TEST_CYCLES", "1000"))
WARM_UP = 100
KV_BLOCKS = 16
CONTEXT = 240
"""Tokens; a stream that fills it needs all `KV_BLOCKS` of 16."""
GROWTH_MIB = 16
"""Of either process, over all cycles: allocators keep what they had at the worst moment."""
READERS = Path(__file__).with_name("passers_by.py")


class Footprint(NamedTuple):
    tasks: int
    descriptors: int
    engine_descriptors: int
    readiness: int
    """HTTP status."""
    memory_mib: int
    engine_memory_mib: int


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def memory_mib(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20


async def cycles(url: str, first: int, count: int) -> None:
    readers = await asyncio.create_subprocess_exec(
        sys.executable, str(READERS), url, str(first), str(count)
    )
    assert await readers.wait() == 0


@pytest.mark.heavy
@pytest.mark.slow
@pytest.mark.timeout(7200)
async def test_gateway_and_engine_are_as_before_when_readers_came_cancelled_and_went() -> None:
    engine = EngineConfig(
        kv_blocks=KV_BLOCKS, block_size=16, context_length=CONTEXT, draft_length=2
    )
    backend = LocalBackend(engine)
    # Few kept streams and a short grace, so that a baseline is reached soon.
    overrides: dict[str, object] = {
        "server.port": 0,
        "limits.kept_streams": 16,
        "delivery.grace_s": 0.2,
    }
    config = GatewayConfig.load(overrides=overrides, env={})

    async def whole_cache(url: str) -> str:
        async with wetink.stream(
            url, prompt="Once upon a time", seed=3, max_tokens=CONTEXT, ignore_eos=True
        ) as reading:
            async for _ in reading:
                pass
        assert reading.finish is not None
        assert reading.finish.reason == "length"
        return reading.text

    async def footprint(http: httpx.AsyncClient) -> Footprint:
        """Once the last streams have been cancelled and their connections closed."""
        pid = backend.engine_pid
        assert pid is not None
        gc.collect()
        return Footprint(
            len(asyncio.all_tasks()),
            descriptors(os.getpid()),
            descriptors(pid),
            (await http.get("/readyz")).status_code,
            memory_mib(os.getpid()),
            memory_mib(pid),
        )

    async def settled(http: httpx.AsyncClient, wanted: Footprint | None = None) -> Footprint:
        """The footprint when it has stopped changing, or is the wanted one but for memory."""
        before = await footprint(http)
        for _ in range(100):
            await asyncio.sleep(0.3)
            now = await footprint(http)
            if now[:4] == (before if wanted is None else wanted)[:4]:
                return now
            before = now
        return before

    async with (
        running_server(config, backend) as url,
        httpx.AsyncClient(base_url=url, timeout=120) as http,
    ):
        while (await http.get("/readyz")).status_code != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        text = await whole_cache(url)
        await cycles(url, 0, WARM_UP)
        baseline = await settled(http)
        await cycles(url, WARM_UP, CYCLES)
        after = await settled(http, baseline)
        assert after[:4] == baseline[:4]
        assert after.memory_mib - baseline.memory_mib < GROWTH_MIB
        assert after.engine_memory_mib - baseline.engine_memory_mib < GROWTH_MIB
        assert await whole_cache(url) == text
