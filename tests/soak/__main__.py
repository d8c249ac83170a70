"""`python -m tests.soak`: random combinations, one after another, until enough or out of time.

A state file remembers what was done, so that a run can be stopped and goes on where it was. Exit
status 0: all that were asked for are done and none differed; 1: one differed; 2: time was up before
all were done, and none differed.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import msgspec

# Before torch: threads that spin while they wait starve each other on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from tests import models
from tests.soak.check import Checkpoints, Outcome, References, check
from tests.soak.combination import POOL, TOKENS, draw


class Record(msgspec.Struct):
    """One line of the state file."""

    seed: int
    number: int
    tokens_each: int
    model: str
    outcome: Outcome
    seconds: float


def main() -> int:
    options = _options()
    logging.basicConfig(level=logging.ERROR)
    records = _read(options.state, options.seed, options.tokens)
    begin = time.monotonic()
    numbers = [options.only] if options.only is not None else range(options.combinations)
    with tempfile.TemporaryDirectory() as folder:
        tiny = models.write(Path(folder) / "tiny")
        near = models.write_near(Path(folder) / "near", tiny, distance=0.05)
        head = models.write_head(Path(folder) / "head")
        references = References(Checkpoints(tiny, near, head))
        for number in numbers:
            if number in records and options.only is None:
                continue
            if time.monotonic() - begin > options.minutes * 60:
                break
            record = _one(options.seed, number, options.tokens, references)
            records[number] = record
            with options.state.open("ab") as file:
                file.write(msgspec.json.encode(record) + b"\n")
            _print(record, records)
    return _verdict(records, set(numbers))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--combinations", type=int, default=500)
    parser.add_argument("--minutes", type=float, default=240.0, help="begin no further one after")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=TOKENS, help="per request")
    parser.add_argument("--state", type=Path, default=Path(".soak.jsonl"))
    parser.add_argument("--only", type=int, help="this combination again, whatever was found")
    return parser.parse_args()


def _read(state: Path, seed: int, tokens: int) -> dict[int, Record]:
    """What was done before, by number. A last line that was cut off does not count."""
    records: dict[int, Record] = {}
    if state.exists():
        for line in state.read_bytes().splitlines():
            try:
                record = msgspec.json.decode(line, type=Record)
            except msgspec.DecodeError:
                continue
            if (record.seed, record.tokens_each) == (seed, tokens):
                records[record.number] = record
    return records


def _one(seed: int, number: int, tokens: int, references: References) -> Record:
    combination = draw(seed, number, tokens=tokens)
    begin = time.monotonic()
    try:
        # The whole pool at once: an engine for it is made once per model.
        references.need(combination.model, range(POOL), tokens)
        outcome = check(combination, references)
    except Exception:
        outcome = Outcome([traceback.format_exc()])
    return Record(seed, number, tokens, combination.model, outcome, time.monotonic() - begin)


def _print(record: Record, records: dict[int, Record]) -> None:
    failed = sum(bool(r.outcome.differences) for r in records.values())
    outcome = record.outcome
    _say(
        f"{len(records)} done, {failed} differ | {record.number} {record.model}:"
        f" {outcome.tokens} tokens, {outcome.in_company} in company, {outcome.accepted} accepted,"
        f" {outcome.preemptions} preemptions, {record.seconds:.1f} s"
    )
    for difference in outcome.differences:
        _say(f"  DIFFERS: {difference}")
    if outcome.differences:
        _say(
            f"  again: python -m tests.soak --seed {record.seed} --tokens {record.tokens_each}"
            f" --only {record.number}"
        )


def _verdict(records: dict[int, Record], asked: set[int]) -> int:
    done = [record for number, record in records.items() if number in asked]
    failed = sorted(record.number for record in done if record.outcome.differences)
    totals = Counter[str]()
    for record in done:
        totals[record.model] += 1
    _say(f"{len(done)} of {len(asked)} combinations, {len(failed)} differ {failed or ''}".rstrip())
    _say(
        f"{sum(r.outcome.tokens for r in done)} tokens compared,"
        f" {sum(r.outcome.in_company for r in done)} made in company,"
        f" {sum(r.outcome.preemptions for r in done)} preemptions"
    )
    for model, count in sorted(totals.items()):
        _say(f"  {count:4} {model}")
    if failed:
        return 1
    return 0 if len(done) == len(asked) else 2


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
