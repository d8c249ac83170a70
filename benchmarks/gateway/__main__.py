"""What delivery costs, beside a bare Starlette, Granian and the LiteLLM proxy, in one run.

    make bench-gateway [ARGS="--quick"]

Servers run on one core, the readers on another; what is compared takes turns. The first run
installs Granian and LiteLLM in environments of their own (some minutes).
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import uvloop

from benchmarks.engine import machine
from benchmarks.gateway import bars, inprocess, load, servers
from benchmarks.gateway.report import PER_EVENT, PER_SECOND, Report, put_table
from benchmarks.peers.base import PeerError

PAGE = Path("docs/gateway.md")
SERVER_CORE, READER_CORE = 0, 1
STREAMS = 100
LITELLM_STREAMS = 20
"""Fewer and longer ones: what a request costs it, apart from its events, is not the question."""
RATE = 50


class Plan(NamedTuple):
    rounds: int = 5
    in_process_events: int = 5000
    events: int = 500
    """Per stream, through sockets."""
    litellm_events: int = 200
    paced_s: int = 10
    held: int = 5000


QUICK = Plan(rounds=1, in_process_events=1000, events=100, litellm_events=20, paced_s=2, held=200)


class Turn(NamedTuple):
    """One server, asked in one way."""

    name: str
    server: servers.Server
    kind: str
    over_socket: bool = False
    """WebSocket, not SSE."""

    def request(self, count: int) -> bytes | load.Talk:
        ask = self.server.talk if self.over_socket else self.server.request
        return ask(self.kind, count)


async def _in_process(report: Report, plan: Plan) -> None:
    measured = await inprocess.measure(plan.in_process_events, plan.rounds)
    for name, values in measured.items():
        report.add(bars.IN_PROCESS, name, PER_EVENT, values)


async def _throughput(report: Report, plan: Plan, turns: list[Turn]) -> None:
    rates: dict[str, list[float]] = {turn.name: [] for turn in turns}
    readers_busy: dict[str, float] = {}
    for number in range(plan.rounds + 1):
        for turn in turns:
            is_litellm = turn.name == bars.LITELLM
            count = plan.litellm_events if is_litellm else plan.events
            streams = LITELLM_STREAMS if is_litellm else STREAMS
            request = turn.request(count)
            done = await load.read_all(turn.server.port, request, streams)
            if done.frames < count * streams:
                raise PeerError(f"{turn.name}: {done.frames} frames of {count * streams}")
            if number:  # the first round warms up
                rates[turn.name].append(done.rate)
                readers_busy[turn.name] = max(readers_busy.get(turn.name, 0.0), done.busy)
                _say(f"  {turn.name}: {done.rate:,.0f} events/s, readers busy {done.busy:.0%}")
    for name, values in rates.items():
        report.add(bars.SOCKETS, name, PER_SECOND, values)
    busy = ", ".join(f"{name} {share:.0%}" for name, share in readers_busy.items())
    report.notes.append(
        "The readers have a core to themselves, and are no bottleneck as long as they leave some of"
        f" it unused. Used at most: {busy}."
    )


async def _paced(report: Report, plan: Plan, paced: dict[str, servers.Server]) -> None:
    for name, server in paced.items():
        request = server.request("paced", RATE * plan.paced_s)
        before = server.used_s
        late = await load.lateness(server.port, request, STREAMS)
        used = (server.used_s - before) / (RATE * plan.paced_s * STREAMS)
        for share in (50, 99):
            value = late[len(late) * share // 100]
            report.add(bars.PACED, f"{name}: added latency p{share}", "ms", [value])
        report.add(bars.PACED, f"{name}: processor time", PER_EVENT, [used * 1e6])


async def _memory(report: Report, plan: Plan, server: servers.Server) -> None:
    """Every stream has one reader, who gets `open` and then nothing."""
    request = server.request("idle", 1)
    for warming in await load.hold(server.port, request, 20):
        warming.close()
    before = server.memory_kib
    held = await load.hold(server.port, request, plan.held)
    report.add(bars.MEMORY, bars.HELD, "KiB", [(server.memory_kib - before) / plan.held])
    report.notes.append(f"{len(held):,} idle streams were held at once.")
    for transport in held:
        transport.close()


async def run(plan: Plan, *, with_peers: bool) -> Report:
    now = datetime.datetime.now(datetime.UTC).isoformat()
    report = Report(when=now, machine=machine.describe())
    os.sched_setaffinity(0, {READER_CORE})
    _say("in process")
    await _in_process(report, plan)
    with ExitStack() as stack:
        bare = servers.Bare("bare", SERVER_CORE)
        wetink = servers.Wetink("wetink", SERVER_CORE)
        turns = [
            Turn(bars.BARE_HOLD, bare, "hold"),
            Turn(bars.BARE_RETRACT, bare, "retract"),
            Turn(f"{bars.BARE_HOLD}, a turn per frame", bare, "hold turns"),
            Turn(bars.WETINK_HOLD, wetink, "hold"),
            Turn(bars.WETINK_RETRACT, wetink, "retract"),
            Turn("bare Starlette, messages of hold, WebSocket", bare, "hold", over_socket=True),
            Turn("Wetink, hold, WebSocket", wetink, "hold", over_socket=True),
        ]
        paced: dict[str, servers.Server] = {"Wetink": wetink}
        if with_peers:
            upstream = servers.Upstream("upstream", READER_CORE)
            _start(stack, upstream)
            granian = servers.BareOnGranian("bare-granian", SERVER_CORE)
            paced["Wetink on Granian"] = servers.WetinkOnGranian("wetink-granian", SERVER_CORE)
            litellm = servers.LiteLlm("litellm", SERVER_CORE, upstream)
            turns += [
                Turn(f"{bars.BARE_HOLD} on Granian, a turn per frame", granian, "hold turns"),
                Turn(bars.LITELLM, litellm, "hold"),
            ]
        every = [*paced.values(), *(turn.server for turn in turns)]
        for server in dict.fromkeys(every):
            try:
                _start(stack, server)
            except PeerError as error:
                report.notes.append(f"{server.name} does not run here: {error}")
                turns = [turn for turn in turns if turn.server is not server]
                paced = {name: each for name, each in paced.items() if each is not server}
        _say("through sockets")
        await _throughput(report, plan, turns)
        await _paced(report, plan, paced)
        # Another process: this one has memory to spare from what it did before.
        fresh = servers.Wetink("wetink-fresh", SERVER_CORE)
        _start(stack, fresh)
        await _memory(report, plan, fresh)
    report.bars = bars.judge(report)
    return report


def _start(stack: ExitStack, server: servers.Server) -> None:
    stack.callback(server.stop)
    _say(f"starting {server.name}")
    server.start()


def main() -> int:
    options = _parser().parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        _say("needs two cores, one for the servers and one for their readers")
        return 2
    plan = QUICK if options.quick else Plan(rounds=options.rounds)
    report = uvloop.run(run(plan, with_peers=not options.no_peers))
    sys.stdout.write(report.table())
    if not options.quick:
        options.json.write_bytes(report.json())
        put_table(PAGE, report)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench-gateway", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="one short round: a try, nothing is written")
    add("--rounds", type=int, default=Plan().rounds, help="default: 5")
    add("--no-peers", action="store_true", help="without Granian and LiteLLM")
    add("--json", type=Path, default=Path("docs/gateway.json"), help="default: docs/gateway.json")
    return parser


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
