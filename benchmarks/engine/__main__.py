"""`make bench-engine`: Wetink and its peers side by side, in one run, on this machine.

    .venv/bin/python -m benchmarks.engine [--peers llama.cpp,vLLM] [--only start,busy] [--quick]

Environments of peers are made first, once; then all servers are started and take turns.
"""

from __future__ import annotations

import argparse
import datetime
import os
import shlex
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import uvloop

from benchmarks.engine import bars, machine
from benchmarks.engine.measures import MEASURES, Plan
from benchmarks.engine.report import Report
from benchmarks.engine.rounds import Column
from benchmarks.engine.workloads import SKY, SKY_ANSWER
from benchmarks.peers.base import Peer, PeerError
from benchmarks.peers.llamacpp import LlamaCpp
from benchmarks.peers.transformers import Transformers
from benchmarks.peers.vllm import Vllm
from benchmarks.peers.wetink import Wetink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")

PEERS: dict[str, Callable[[int], Peer]] = {
    bars.LLAMACPP: LlamaCpp,
    bars.VLLM: Vllm,
    bars.TRANSFORMERS: Transformers,
}
RESULT = Path("benchmarks/results/engine.json")
FULL = Plan(repeats=5, max_tokens=128, copied_tokens=256)
QUICK = Plan(repeats=1, max_tokens=32, copied_tokens=128)


def main() -> int:
    options = _parser().parse_args()
    # Ended from outside, the servers end too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    plan = QUICK if options.quick else FULL
    if options.repeats is not None:
        plan = Plan(options.repeats, plan.max_tokens, plan.copied_tokens)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as servers:
        report = uvloop.run(_run(options, plan, servers))
    sys.stdout.write(report.table())
    return 0


async def _run(options: argparse.Namespace, plan: Plan, servers: ExitStack) -> Report:
    wetink = Wetink(options.threads, options.serve)
    peers = [wetink, *(PEERS[name](options.threads) for name in options.peers)]
    report = Report(
        when=datetime.datetime.now(datetime.UTC).isoformat(),
        machine=machine.describe(),
        plan=plan,
        versions={},
        absent={},
        samples={},
    )
    columns = {peer.name: Column(peer.name, peer) for peer in peers}
    for peer in peers:
        servers.callback(peer.stop)
        _say(f"starting {peer.name}")
        try:
            peer.start()
            report.versions[peer.name] = peer.version()
            report.samples[peer.name] = await _sample(columns[peer.name])
        except PeerError as error:
            peer.stop()
            _say(f"  {peer.name}: {error}")
            report.absent[peer.name] = str(error)
            del columns[peer.name]
    if wetink.name in columns:
        columns[bars.NGRAM] = Column(bars.NGRAM, wetink, drafter="ngram")
        columns[bars.DRAFTED] = Column(bars.DRAFTED, wetink, drafter="head")
    for name in options.only:
        _say(name)
        rows = await MEASURES[name](columns, plan)
        bars.judge(rows)
        report.rows += rows
        # After each measure, so that an interrupted run keeps what it has.
        options.json.write_bytes(report.json())
    return report


async def _sample(column: Column) -> str:
    """Raises PeerError for a server that is fast but talks nonsense."""
    answer = (await column.ask([SKY]))[0]
    if SKY_ANSWER not in answer.text:
        raise PeerError(f"asked {SKY.content!r}, it said {answer.text!r}")
    return answer.text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make bench-engine", description="Wetink and its peers, side by side."
    )
    add = parser.add_argument
    add("--peers", type=_names(PEERS), default=list(PEERS), metavar="A,B", help=", ".join(PEERS))
    add("--only", type=_names(MEASURES), default=list(MEASURES), help=", ".join(MEASURES))
    add("--repeats", type=int, metavar="N", help=f"rounds (default: {FULL.repeats})")
    add("--quick", action="store_true", help="one round and short answers: a try, no figures")
    add("--threads", type=int, metavar="N", default=len(os.sched_getaffinity(0)))
    add(
        "--serve",
        type=shlex.split,
        default=[],
        metavar="OPTIONS",
        help="more options of `wetink serve`, as one word: --serve='--dtype float32'",
    )
    add("--json", type=Path, metavar="FILE", default=RESULT, help=f"default: {RESULT}")
    return parser


def _names(known: Iterable[str]) -> Callable[[str], list[str]]:
    """A comma-separated choice of `known`; empty: none of them."""

    def parse(text: str) -> list[str]:
        chosen = [name for name in text.split(",") if name]
        for name in chosen:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return chosen

    return parse


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
