"""`wetink serve` as a process that is told to stop while streams are live."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

import httpx

import wetink
from protocol.events import Commit, Error
from tests.server.gateways import PATIENCE_S, Reader

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncGenerator
    from pathlib import Path

WORDS = [f"word{number} " for number in range(60)]
STEP_MS = 25


class Served(NamedTuple):
    process: Process
    http: httpx.AsyncClient
    url: str

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    async def exit_status(self) -> int:
        return await asyncio.wait_for(self.process.wait(), PATIENCE_S)


@asynccontextmanager
async def serving(folder: Path, *, drain_s: float, endless: bool = False) -> AsyncGenerator[Served]:
    steps = [{"after_ms": STEP_MS, "event": "verified", "text": word} for word in WORDS]
    if endless:
        steps.append({"after_ms": 3_600_000, "event": "verified", "text": "never"})
    (folder / "words.json").write_text(json.dumps(steps))
    command = ("-m", "gateway.cli", "serve", "--port", "0", "--trace", str(folder / "words.json"))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import sys; from gateway.cli import main; sys.exit(main(sys.argv[1:]))",
        *command[2:],
        env={**os.environ, "WETINK_SERVER_DRAIN_S": str(drain_s)},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            while b" at http" not in (line := await process.stdout.readline()):
                assert line, "the gateway ended before it was ready"
        url = line.decode().rpartition(" at ")[2].strip()
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S, trust_env=False) as http:
            yield Served(process, http, url)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_gateway_lets_live_streams_finish_and_takes_no_new_ones_when_told_to_stop(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, drain_s=60.0) as served:
        async with (
            wetink.stream(served.url, prompt="x", policy="hold") as first,
            wetink.stream(served.url, prompt="x", policy="hold", transport="ws") as second,
        ):
            served.terminate()
            probe = await served.http.get("/readyz")
            while probe.status_code == 200:
                probe = await served.http.get("/readyz")
            assert (probe.status_code, probe.json()) == (503, {"status": "stopping"})
            refused = await served.http.post("/v1/streams", json={"prompt": "x"})
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "shutting_down"
            texts = ["".join([t async for t in each.committed()]) for each in (first, second)]
            assert texts == ["".join(WORDS)] * 2
            assert first.complete
            assert second.complete
        assert await served.exit_status() == 0


async def test_gateway_ends_streams_with_a_retryable_error_when_draining_takes_too_long(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, drain_s=0.2, endless=True) as served:
        body = {"prompt": "x", "policy": "hold"}
        headers = {"Accept": "text/event-stream"}
        async with served.http.stream(
            "POST", "/v1/streams", json=body, headers=headers
        ) as response:
            reader = Reader(response)
            await reader.next()
            served.terminate()
            *commits, (end, _) = await reader.to_end()
        assert isinstance(end, Error)
        assert (end.code, end.retryable) == ("shutting_down", True)
        text = "".join(event.text for event, _ in commits if isinstance(event, Commit))
        assert "".join(WORDS).startswith(text)
        assert end.at == len(text)
        assert await served.exit_status() == 0


async def test_gateway_stops_at_once_when_told_twice(tmp_path: Path) -> None:
    async with serving(tmp_path, drain_s=3600.0, endless=True) as served:
        created = await served.http.post("/v1/streams", json={"prompt": "x"})
        assert created.status_code == 201
        served.terminate()
        while (await served.http.get("/readyz")).status_code == 200:
            pass
        served.terminate()
        assert await served.exit_status() == 0
