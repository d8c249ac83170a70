"""Another server's stream passed on: Wetink beside a bare Starlette and the LiteLLM proxy.

    make bench-passing [ARGS="--quick"]

The server under test has one core, the upstream and the readers share another; what is compared
takes turns, and a rate is that of the upstream's events. The first run installs LiteLLM.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import uvloop

from benchmarks.engine import machine
from benchmarks.gateway import load, servers
from benchmarks.passing.apps import RATE
from benchmarks.peers.base import PeerError

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGE = Path("docs/upstreams.md")
BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"
SERVER_CORE, OTHER_CORE = 0, 1
STREAMS = 50
LITELLM_STREAMS = 10
PACED_STREAMS = 50


class Plan(NamedTuple):
    rounds: int = 5
    events: int = 500
    litellm_events: int = 200
    paced_s: int = 6


QUICK = Plan(rounds=1, events=200, litellm_events=30, paced_s=2)


class _Passing(servers.Server):
    kind = ""

    def __init__(self, name: str, core: int, upstream: servers.Server | None = None) -> None:
        super().__init__(name, core)
        self._upstream = upstream

    def command(self) -> Sequence[str | Path]:
        behind = [] if self._upstream is None else [str(self._upstream.port)]
        return [sys.executable, "-m", "benchmarks.passing.apps", self.kind, str(self.port), *behind]

    def request(self, kind: str, count: int) -> bytes:
        wanted: dict[str, object] = {"model": "m", "max_tokens": count, "stream": True}
        if kind == "paced":
            return load.post("/v1/completions", msgspec.json.encode({**wanted, "prompt": "x"}))
        messages = [{"role": "user", "content": "x"}]
        body = msgspec.json.encode({**wanted, "messages": messages})
        return load.post("/v1/chat/completions", body)


class Upstream(_Passing):
    kind = "upstream"


class Bare(_Passing):
    kind = "bare"


class Wetink(_Passing):
    kind = "wetink"


class WetinkEvents(_Passing):
    """The same gateway, read through its own event streams."""

    kind = "wetink"

    def request(self, kind: str, count: int) -> bytes:
        wanted = {"model": "m", "max_tokens": count, "policy": "hold"}
        messages = [{"role": "user", "content": "x"}]
        return load.post("/v1/streams", msgspec.json.encode({**wanted, "messages": messages}))


class LiteLlm(servers.LiteLlm):
    def __init__(self, name: str, core: int, upstream: Upstream) -> None:
        super().__init__(name, core, upstream)  # type: ignore[arg-type]


async def run(plan: Plan) -> str:
    os.sched_setaffinity(0, {OTHER_CORE})
    with ExitStack() as stack:
        upstream = Upstream("passing-upstream", OTHER_CORE)
        turns: dict[str, servers.Server] = {
            "bare Starlette and aiohttp": Bare("passing-bare", SERVER_CORE, upstream),
            "Wetink, /v1/chat/completions": Wetink("passing-wetink", SERVER_CORE, upstream),
            "Wetink, /v1/streams, hold": WetinkEvents("passing-events", SERVER_CORE, upstream),
            "LiteLLM proxy": LiteLlm("passing-litellm", SERVER_CORE, upstream),
        }
        for server in (upstream, *turns.values()):
            stack.callback(server.stop)
            server.start()
        rates = await _rates(plan, turns)
        rows = [
            f"| passing on as fast as it can | {name} | {statistics.median(values):,.0f} "
            f"({min(values):,.0f}–{max(values):,.0f}) | events/s |"
            for name, values in rates.items()
        ]
        direct = "the upstream itself"
        paced = {direct: upstream, **dict(list(turns.items())[:2])}
        late = {name: await _late(plan, server) for name, server in paced.items()}
        where = f"{PACED_STREAMS} streams × {RATE} events/s"
        for name, (middle, most) in late.items():
            rows.append(f"| {where} | {name}: lateness p50, p99 | {middle:.2f}, {most:.2f} | ms |")
        added = late["Wetink, /v1/chat/completions"][1] - late[direct][1]
        bars = _bars({name: statistics.median(values) for name, values in rates.items()}, added)
    here = machine.describe()
    where = f"{here.processor} ({', '.join(here.flags)}), Python {here.python}"
    head = f"Measured on {where}.\n\n| setting | what | median (range) | |\n"
    return "\n".join([f"{head}|---|---|---|---|", *rows, "", *bars]) + "\n"


async def _rates(plan: Plan, turns: dict[str, servers.Server]) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(plan.rounds + 1):
        for name, server in turns.items():
            slow = isinstance(server, LiteLlm)
            count = plan.litellm_events if slow else plan.events
            streams = LITELLM_STREAMS if slow else STREAMS
            done = await load.read_all(server.port, server.request("fast", count), streams)
            rate = count * streams / done.seconds
            sys.stderr.write(f"  {name}: {rate:,.0f} events/s, readers busy {done.busy:.0%}\n")
            if number:  # the first round warms up
                rates[name].append(rate)
    return rates


async def _late(plan: Plan, server: servers.Server) -> tuple[float, float]:
    """Middle and 99th percentile, ms."""
    late = await load.lateness(
        server.port, server.request("paced", RATE * plan.paced_s), PACED_STREAMS
    )
    if not late:
        raise PeerError(f"{server.name}: no clock readings came")
    return late[len(late) // 2], late[len(late) * 99 // 100]


def _bars(rates: dict[str, float], added_ms: float) -> list[str]:
    wetink = rates["Wetink, /v1/chat/completions"]
    judged = [
        ("÷ LiteLLM proxy", "≥ 5", f"{wetink / rates['LiteLLM proxy']:.1f}", 5.0),
        (
            "÷ bare Starlette and aiohttp",
            "≥ 0.6",
            f"{wetink / rates['bare Starlette and aiohttp']:.2f}",
            0.6,
        ),
    ]
    rows = ["| bar | wanted | measured | |", "|---|---|---|---|"]
    for name, wanted, measured, least in judged:
        verdict = "met" if float(measured) >= least else "missed"
        rows.append(f"| Wetink, /v1/chat/completions {name} | {wanted} | {measured} | {verdict} |")
    verdict = "met" if added_ms <= 3 else "missed"
    rows.append(f"| added latency p99, ms | ≤ 3 | {added_ms:.2f} | {verdict} |")
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-passing", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a try: nothing is written")
    options = parser.parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        sys.stderr.write("needs two cores\n")
        return 2
    table = uvloop.run(run(QUICK if options.quick else Plan()))
    sys.stdout.write(table)
    if not options.quick:
        text = PAGE.read_text(encoding="utf-8")
        before, _, rest = text.partition(BEGIN)
        after = rest.partition(END)[2]
        PAGE.write_text(f"{before}{BEGIN}{table}{END}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
