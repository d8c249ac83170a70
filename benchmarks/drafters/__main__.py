"""Tokens per step, acceptance by place, speed and calibration of every drafter.

    make bench-drafters [ARGS="--quick"]

Through the real engine, which chooses the length of drafts. Drafters take turns on the same
prompts, each round in another order, so that a busy moment of the machine meets all of them. Writes
its tables into docs/drafters.md.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import sys
from pathlib import Path

from benchmarks.drafters.prompts import KINDS, PASSAGES, prompts
from benchmarks.drafters.report import Cell, Report, tables, write
from benchmarks.drafters.streams import Run, Speculation, Task
from benchmarks.drafters.tally import Tally
from engine.config import EngineConfig
from engine.engine import Engine

CROWDS = (8, 32)
"""Streams at a time besides one; these on conversation, without speculation and with all of it."""
CROWD_TEMPERATURES = (0.0, 0.7)
WARM_UP = 2
"""Prompts before the first round: chances of acceptance start from assumptions."""


def main() -> int:
    options = _parser().parse_args()
    temperatures = [0.0, 0.7] if options.quick else [0.0, 0.2, 0.7, 1.0]
    rounds = options.rounds or (1 if options.quick else 3)
    kinds = ["chat", "code", "summarise"] if options.quick else list(KINDS)
    drafters = options.drafters.split(",")
    # Nobody profits from what another read before.
    config = EngineConfig(threads=options.threads, prefix_cache=False)
    engine = Engine(config, lambda phase, fraction: None)
    report = Report(
        datetime.datetime.now(datetime.UTC).date().isoformat(),
        f"{os.cpu_count()} cores of {platform.machine()}",
        options.length,
        rounds,
    )
    for temperature in temperatures:
        for kind in kinds:
            _measure(engine, report, kind, temperature, drafters, options.max_tokens)
    for streams in CROWDS:
        for temperature in CROWD_TEMPERATURES:
            crowd = ["none", "combined"]
            _measure(engine, report, "chat", temperature, crowd, options.max_tokens, streams)
    engine.close()
    write(report, options.json)
    sys.stdout.write(tables(report))
    return 0


def _measure(
    engine: Engine,
    report: Report,
    kind: str,
    temperature: float,
    drafters: list[str],
    max_tokens: int,
    streams: int = 1,
) -> None:
    """All drafters on one kind of task; adds a cell for each."""
    cells = [Cell(kind, temperature, streams, drafter, Tally()) for drafter in drafters]
    for cell in cells:
        warm_up = _tasks(kind, temperature, max_tokens, 0)[:WARM_UP]
        Run(engine, Speculation(cell.drafter, report.length)).go(warm_up, 1)
    for number in range(report.rounds):
        one_round = _tasks(kind, temperature, max_tokens, 1 + number)
        tasks = one_round * max(1, 2 * streams // len(one_round))
        rates: dict[str, float] = {}
        first = number % len(cells)
        for cell in cells[first:] + cells[:first]:
            tally = Run(engine, Speculation(cell.drafter, report.length)).go(tasks, streams).tally
            cell.tally.add(tally)
            rates[cell.drafter] = tally.rate
        for cell in cells:
            if rates.get("none"):
                cell.speedups.append(rates[cell.drafter] / rates["none"])
    report.cells += cells
    for cell in cells:
        speed = "–" if cell.speedup is None else f"{cell.speedup:.2f}"
        sys.stderr.write(
            f"{kind} T={temperature:g} {streams} streams, {cell.drafter}:"
            f" {cell.tally.tokens_per_step:.2f} tokens/step, speed {speed}\n"
        )


def _tasks(kind: str, temperature: float, max_tokens: int, round_number: int) -> list[Task]:
    """One per prompt. Edits come with the text to be edited as prediction."""
    predictions = PASSAGES if kind == "edit" else [None] * len(PASSAGES)
    return [
        Task(prompt, prediction, temperature, 1000 * round_number + seed, max_tokens)
        for seed, (prompt, prediction) in enumerate(zip(prompts(kind), predictions, strict=True))
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drafters", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="three kinds of task, two temperatures, one round")
    add("--drafters", default="none,ngram,suffix,head,combined", help="comma-separated")
    add("--length", type=int, default=8, help="most tokens per draft (default: 8)")
    add("--max-tokens", type=int, default=128, help="per answer (default: 128)")
    add("--rounds", type=int, help="default: 3, with --quick 1")
    add("--threads", type=int, help="compute threads (default: one per core)")
    add("--json", type=Path, metavar="FILE", help="where to put all that was counted")
    return parser


if __name__ == "__main__":
    sys.exit(main())
