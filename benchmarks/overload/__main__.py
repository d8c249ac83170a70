"""What clients feel of an overload: a real server, a scripted backend with eight places, and
requests that come at a steady rate whether or not the earlier ones were answered.

    python -m benchmarks.overload           # two minutes; into docs/overload.svg
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import httpx

from benchmarks.overload.plot import plot
from gateway.backends.scripted import BUILT_IN_TRACES, ScriptedBackend
from gateway.config import BackendConfig, GatewayConfig
from gateway.server import running_server

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PLACES = 8
LOADS = (0.5, 1.0, 2.0, 3.0, 5.0)
"""Requests per second, in those that can be served."""
TRACE = BUILT_IN_TRACES / "lighthouse.jsonl"
SPEED = 8.0
UNBOUNDED = {"overload.longest_wait_s": 1e6, "overload.waiting": 100_000}
BOUNDED = {"overload.longest_wait_s": 1.0}
ROOT = Path(__file__).parents[2]


class Outcome(NamedTuple):
    """One load under one setting."""

    setting: str
    load: float
    median_s: float
    p95_s: float
    """Of those who were served: from the request to the first committed text."""
    refused: float
    """Share of all requests."""


async def first_commit_s(http: httpx.AsyncClient, url: str) -> float | None:
    """Seconds to the first committed text; None: refused."""
    began = time.perf_counter()
    first: float | None = None
    async with http.stream(
        "POST",
        f"{url}/v1/streams",
        json={"prompt": "x", "policy": "hold"},
        headers={"Accept": "text/event-stream"},
    ) as answer:
        if answer.status_code != 200:
            await answer.aread()
            return None
        async for line in answer.aiter_lines():
            if first is None and '"type":"commit"' in line:
                first = time.perf_counter() - began
    assert first is not None
    return first


async def measure(
    setting: str, overrides: Mapping[str, object], load: float, seconds: float
) -> Outcome:
    config = GatewayConfig.load(
        overrides={
            "server.port": 0,
            "limits.live_streams": 100_000,
            "overload.places": PLACES,
            **overrides,
        },
        env={},
    )
    backend = ScriptedBackend.from_config(BackendConfig(traces=str(TRACE), speed=SPEED))
    limits = httpx.Limits(max_connections=None)
    async with (
        httpx.AsyncClient(trust_env=False, timeout=120, limits=limits) as http,
        running_server(config, backend) as url,
    ):
        began = time.perf_counter()
        await first_commit_s(http, url)
        stream_s = time.perf_counter() - began
        gap_s = stream_s / PLACES / load
        asked: list[asyncio.Task[float | None]] = []
        began = time.perf_counter()
        while (due := began + len(asked) * gap_s) < began + seconds:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            asked.append(asyncio.create_task(first_commit_s(http, url)))
        answers = await asyncio.gather(*asked)
    served = sorted(each for each in answers if each is not None)
    return Outcome(
        setting,
        load,
        statistics.median(served),
        served[int(len(served) * 0.95)],
        1.0 - len(served) / len(answers),
    )


async def run(seconds: float) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for load in LOADS:
        for setting, overrides in (("bounded", BOUNDED), ("unbounded", UNBOUNDED)):
            outcomes.append(await measure(setting, overrides, load, seconds))
            one = outcomes[-1]
            print(  # noqa: T201
                f"{one.load:>4}x {one.setting:<10} median {one.median_s:6.2f} s  "
                f"p95 {one.p95_s:6.2f} s  refused {one.refused:.0%}",
                flush=True,
            )
    return outcomes


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload")
    parser.add_argument("--seconds", type=float, default=8.0, help="per load and setting")
    outcomes = asyncio.run(run(parser.parse_args(argv).seconds))
    (ROOT / "docs" / "overload.svg").write_text(plot(outcomes))


if __name__ == "__main__":
    main()
