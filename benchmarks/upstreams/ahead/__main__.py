"""Lead against erasure of a draft ahead of a slow upstream, and its cost on a fast one.

    make bench-upstreams [ARGS="--quick"]
    make bench-upstreams ARGS="--prompts tuning --out benchmarks/results"

The upstream says recorded texts of another model at 15 tokens a second, the first 1.7 s after the
request. What gateway and drafter make of it is taken down once, in real time, and read again under
every policy.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from benchmarks.budget.measures import Outcome, summarised
from benchmarks.budget.replay import read
from benchmarks.upstreams.ahead.drafted import ask, ask_all
from benchmarks.upstreams.ahead.processor import seconds_of
from benchmarks.upstreams.ahead.prompts import HELD_OUT, PROMPTS
from benchmarks.upstreams.ahead.record import Answer, load
from benchmarks.upstreams.ahead.report import Report, put
from benchmarks.upstreams.ahead.upstream import FAST, SLOW, RecordedUpstream
from gateway.backends.ahead import AheadBackend
from gateway.backends.base import Finished, TokenCounts
from gateway.backends.local.backend import LocalBackend
from gateway.config import EngineConfig
from protocol.requests import Hold, PolicySpec, StreamRetract

if TYPE_CHECKING:
    from benchmarks.budget.record import Recording

BUDGETS = (0.01, 0.02, 0.05, 0.10, 0.20)
POLICIES: dict[str, PolicySpec] = {
    "hold": Hold(),
    **{f"retract:{budget:g}": StreamRetract(budget=budget) for budget in BUDGETS},
    "retract": StreamRetract(),
}
FAST_ROUNDS = 4
FAST_SHARE = 4
"""One answer in so many is enough for how long they take."""


class Slow(NamedTuple):
    outcomes: list[Outcome]
    cpu_share: float
    """Seconds of processor that the drafting engine took per second and stream."""
    drafted_per_token: float
    accepted: float


async def _slow(local: LocalBackend, answers: list[Answer]) -> Slow:
    backend = AheadBackend(RecordedUpstream(answers, SLOW), local)
    await backend.start()
    before, begun = seconds_of(local.engine_pid), time.perf_counter()
    recordings = await ask_all(backend, answers)
    used, lasted = seconds_of(local.engine_pid) - before, time.perf_counter() - begun
    alone = sum(recording.events[-1].at for recording in recordings)
    sys.stderr.write(f"{len(answers)} answers in {lasted:.0f} s\n")
    await backend.stop()
    counts = [_counts(recording) for recording in recordings]
    drafted = sum(each.drafted for each in counts)
    return Slow(
        _outcomes(answers, recordings),
        used / alone,
        drafted / sum(each.completion for each in counts),
        sum(each.accepted for each in counts) / drafted,
    )


def _outcomes(answers: list[Answer], recordings: list[Recording]) -> list[Outcome]:
    """By kind and temperature, then of all, under every policy."""
    asked = [(f"{answer.temperature:g}", answer.kind) for answer in answers]
    readings = {name: [read(r, policy) for r in recordings] for name, policy in POLICIES.items()}
    outcomes: list[Outcome] = []
    for speed, kind in sorted(set(asked), key=lambda one: one[::-1]):
        for name, policy in POLICIES.items():
            pairs = zip(readings[name], asked, strict=True)
            chosen = [reading for reading, one in pairs if one == (speed, kind)]
            outcomes.append(summarised(speed, kind, name, policy, chosen))
    return outcomes + [
        summarised("all", "all", name, policy, readings[name]) for name, policy in POLICIES.items()
    ]


def _counts(recording: Recording) -> TokenCounts:
    last = recording.events[-1].event
    assert isinstance(last, Finished)
    return last.counts


async def _fast(local: LocalBackend, answers: list[Answer]) -> list[float]:
    """Time of a stream with a draft ahead over that without, by round: alternating."""
    upstream = RecordedUpstream(answers, FAST)
    backend = AheadBackend(upstream, local)
    await ask(backend, answers[0])  # which shows how fast it is
    ratios: list[float] = []
    for _ in range(FAST_ROUNDS):
        ahead = bare = 0.0
        for answer in answers:
            bare += (await ask(upstream, answer)).events[-1].at
            ahead += (await ask(backend, answer)).events[-1].at
        ratios.append(ahead / bare)
    return ratios


async def _measure(prompts: str, quick: bool) -> Report:
    answers = load(prompts)
    # Kinds and temperatures mixed, so that what is learnt on the way is spread over all of them.
    answers = sorted(answers, key=_order)[: 4 if quick else None]
    local = LocalBackend(EngineConfig())
    await local.start()
    slow = await _slow(local, answers)
    ratios = await _fast(local, answers[::FAST_SHARE])
    await local.stop()
    return Report(
        outcomes=slow.outcomes,
        cpu_share=slow.cpu_share,
        drafted_per_token=slow.drafted_per_token,
        accepted=slow.accepted,
        fast_ratio=statistics.median(ratios),
    )


def _order(answer: Answer) -> int:
    """An order that is the same in every run."""
    return sum(map(ord, "".join(answer.pieces))) * 7919 % 104729


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.upstreams.ahead", description=__doc__
    )
    parser.add_argument("--quick", action="store_true", help="four answers; no table")
    parser.add_argument(
        "--prompts", choices=sorted(PROMPTS), default=HELD_OUT, help="tuning: no table"
    )
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder for the results")
    options = parser.parse_args()
    report = asyncio.run(_measure(options.prompts, options.quick))
    for outcome in report.outcomes:
        sys.stdout.write(f"{outcome.line()}, first {outcome.ttfv_gain_ms:.0f} ms\n")
    sys.stdout.write(
        f"cpu {report.cpu_share:.3f}, drafted {report.drafted_per_token:.2f} per token, "
        f"accepted {report.accepted:.2f}, fast {report.fast_ratio:.4f}\n"
    )
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "ahead.json").write_bytes(
        msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n"
    )
    if not options.quick and options.prompts == HELD_OUT:
        put(options.out, report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
