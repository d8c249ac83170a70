"""The table that people read, and the JSON that programs read."""

from __future__ import annotations

import statistics

import msgspec

from benchmarks.engine.bars import OURS, PEERS
from benchmarks.engine.machine import Machine
from benchmarks.engine.measures import Plan
from benchmarks.engine.rounds import Row, Verdict

COLUMNS = (*OURS, *PEERS)
QUIET = 0.9
"""With less of the machine idle before the run, its figures say little."""


class Report(msgspec.Struct):
    when: str
    machine: Machine
    plan: Plan
    versions: dict[str, str]
    absent: dict[str, str]
    """Peers that were asked for and do not run here, each with the reason."""
    samples: dict[str, str]
    """What each column said first, to one and the same question."""
    rows: list[Row] = []

    def json(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"

    def table(self) -> str:
        """Markdown. A cell is the median of the rounds, and their range where they are several."""
        columns = [name for name in COLUMNS if any(name in row.values for row in self.rows)]
        columns += [name for name in COLUMNS if name in self.absent]
        lines = [
            f"{self.when[:16]} UTC, {self.machine.line}",
            ", ".join(f"{name} {version}" for name, version in self.versions.items())
            + f"; medians of {self.plan.repeats} alternating rounds,"
            f" chat answers of {self.plan.max_tokens} tokens, greedy",
            "",
            *_markdown(["", "unit", *columns], [_cells(row, columns) for row in self.rows]),
            "",
            *_markdown(["bar", "wanted", "measured", ""], self._bars()),
            "",
            *self._notes(),
        ]
        return "\n".join(lines) + "\n"

    def _bars(self) -> list[list[str]]:
        return [
            [f"{row.name}: {verdict.bar}", *_verdict(verdict, row)]
            for row in self.rows
            for verdict in row.verdicts
        ]

    def _notes(self) -> list[str]:
        notes = [f"{name} does not run here: {reason}" for name, reason in self.absent.items()]
        for row in self.rows:
            notes += [f"{name}, {row.name}: {reason}" for name, reason in row.failures.items()]
        if self.machine.idle < QUIET:
            idle = f"{self.machine.idle:.0%}"
            notes.append(f"Only {idle} of the machine was idle before the run: measure again.")
        notes += [f"{name} said: {text!r}" for name, text in self.samples.items()]
        return [f"* {note}" for note in notes]


def _cells(row: Row, columns: list[str]) -> list[str]:
    return [row.name, row.unit, *(_cell(row, name) for name in columns)]


def _cell(row: Row, column: str) -> str:
    values = row.values.get(column)
    if not values:
        return "failed" if column in row.failures else "–"
    median = _number(statistics.median(values))
    return (
        median if len(values) == 1 else f"{median} ({_number(min(values))}–{_number(max(values))})"
    )


def _verdict(verdict: Verdict, row: Row) -> list[str]:
    if verdict.value is None:
        return [f"{verdict.wanted:g}", "–", "not measured"]
    word = "met" if verdict.met else "missed"
    if verdict.against is None:
        sign = "≥" if row.higher_is_better else "≤"
        return [
            f"{sign} {verdict.wanted:g} {row.unit}",
            f"{_number(verdict.value)} {row.unit}",
            word,
        ]
    peer = f" ({verdict.against})" if "best" in verdict.bar else ""
    return [f"≥ {verdict.wanted:g}", f"{verdict.value:.2f}{peer}", word]


def _number(value: float) -> str:
    """Three digits that count."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _markdown(head: list[str], body: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]

    def line(cells: list[str]) -> str:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        return f"| {' | '.join(padded)} |"

    return [line(head), line(["-" * width for width in widths]), *map(line, body)]
