"""The budget of `retract`: asked against measured, and what it leaves of the head start.

    make bench-budget [ARGS="--quick"]

Real answers of the embedded model are recorded once per speed and read again under every policy, so
that all of them meet the same drafts and verdicts at the same times.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from benchmarks.budget.measures import Outcome, summarised
from benchmarks.budget.plot import plot
from benchmarks.budget.record import Recording, engine, overconfident, record
from benchmarks.budget.replay import read
from benchmarks.budget.report import put_table
from protocol.requests import Hold, PolicySpec, StreamRetract

if TYPE_CHECKING:
    from engine.engine import Engine

BUDGETS = (0.02, 0.05, 0.10, 0.20)
POLICIES: dict[str, PolicySpec] = {
    "hold": Hold(),
    **{f"retract:{budget:g}": StreamRetract(budget=budget) for budget in BUDGETS},
    "retract": StreamRetract(),
}
SLOWED_MS = 52.0
"""On top of our own 14 ms a step: the 66 ms that 70 billion weights of 8 bits take to be read at
about 1 TB/s."""
SPEEDS = {"real": 0.0, "slowed": SLOWED_MS}
MIXES = ("chat", "code", "shifted")


def main() -> int:
    options = _parser().parse_args()
    outcomes: list[Outcome] = []
    for speed, delay in SPEEDS.items():
        seeds = {"real": options.seeds, "slowed": options.slowed_seeds}[speed]
        count, tokens = (2, 96) if options.quick else (seeds, options.max_tokens)
        on = engine(delay, options.threads)
        for mix in MIXES:
            recordings = _recordings(on, mix, range(count), tokens)
            for name, policy in POLICIES.items():
                readings = [read(recording, policy) for recording in recordings]
                outcomes.append(summarised(speed, mix, name, policy, readings))
                sys.stdout.write(outcomes[-1].line() + "\n")
                sys.stdout.flush()
        on.close()
    folder: Path = options.out
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "budget.json").write_bytes(
        msgspec.json.format(msgspec.json.encode(outcomes), indent=1) + b"\n"
    )
    if not options.quick:
        put_table(folder / "budget.md", outcomes)
        (folder / "budget.svg").write_text(plot(outcomes), encoding="utf-8")
    return 0


def _recordings(on: Engine, mix: str, seeds: range, tokens: int) -> list[Recording]:
    """`shifted`: hotter than the drafter's calibration knows, and claims far too good (a token
    that is right half of the time is claimed at 0.84).
    """
    if mix != "shifted":
        return record(on, mix, seeds=seeds, max_tokens=tokens, temperature=None)
    return [
        overconfident(recording)
        for kind in ("creative", "chat")
        for recording in record(on, kind, seeds=seeds[::2], max_tokens=tokens, temperature=1.0)
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.budget", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="two short answers per mix: JSON only, no table")
    add("--seeds", type=int, default=16, help="answers per mix at real speed (default: 16)")
    add("--slowed-seeds", type=int, default=16, help="the same, slowed (default: 16)")
    add("--max-tokens", type=int, default=256, help="per answer (default: 256)")
    add("--threads", type=int, help="compute threads (default: one per core)")
    add("--out", type=Path, default=Path("docs"), help="folder for the results (default: docs)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
