"""The figures, what Wetink asks of itself, and the table of docs/gateway.md."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

import msgspec

from benchmarks.budget.report import BEGIN, END
from benchmarks.engine.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

PER_EVENT = "µs per event"
PER_SECOND = "events/s"


class Figure(msgspec.Struct):
    """One line of the table; one value per round."""

    group: str
    name: str
    unit: str
    values: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def row(self) -> str:
        low, high = min(self.values), max(self.values)
        span = "" if len(self.values) == 1 else f" ({_number(low)}–{_number(high)})"
        return f"| {self.group} | {self.name} | {_number(self.median)}{span} | {self.unit} |\n"


class Bar(msgspec.Struct):
    """What is asked for; `value` None: it was not measured."""

    name: str
    wanted: float
    at_most: bool
    value: float | None

    @property
    def met(self) -> bool | None:
        if self.value is None:
            return None
        return self.value <= self.wanted if self.at_most else self.value >= self.wanted

    def row(self) -> str:
        sign = "≤" if self.at_most else "≥"
        measured = "–" if self.value is None else _number(self.value)
        verdict = {None: "not measured", True: "met", False: "missed"}[self.met]
        return f"| {self.name} | {sign} {self.wanted:g} | {measured} | {verdict} |\n"


class Report(msgspec.Struct):
    when: str
    machine: Machine
    figures: list[Figure] = []
    bars: list[Bar] = []
    notes: list[str] = []

    def add(self, group: str, name: str, unit: str, values: Iterable[float]) -> None:
        self.figures.append(Figure(group, name, unit, list(values)))

    def values(self, group: str, name: str) -> list[float] | None:
        for figure in self.figures:
            if (figure.group, figure.name) == (group, name):
                return figure.values
        return None

    def json(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"

    def table(self) -> str:
        head = "| | | median (range) | unit |\n|---|---|---|---|\n"
        bars = "\n| bar | wanted | measured | |\n|---|---|---|---|\n"
        return (
            f"{self.when[:16]} UTC, {self.machine.line}; {self.machine.idle:.0%} idle before\n\n"
            + head
            + "".join(figure.row() for figure in self.figures)
            + bars
            + "".join(bar.row() for bar in self.bars)
            + "\n"
            + "".join(f"* {note}\n" for note in self.notes)
        )


def put_table(page: Path, report: Report) -> None:
    """Replaces what stands between the page's markers. Raises ValueError where there are none."""
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} lacks {BEGIN} or {END}")
    page.write_text(f"{before}{BEGIN}\n{report.table()}{END}{after}", encoding="utf-8")


def _number(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
