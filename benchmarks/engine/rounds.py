"""Alternating rounds: in each, every column has one turn, so that all see the same machine.

The order moves on by one from round to round. What is compared is compared within a round.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import msgspec

from benchmarks.peers.base import Answer, Peer, PeerError, Request

SETTLE_S = 0.5
"""Between two turns: threads that spin for more work after the last one fall asleep."""


class Column(NamedTuple):
    """A peer, or one way to use it."""

    name: str
    peer: Peer
    drafter: str | None = None

    async def ask(self, requests: Sequence[Request]) -> list[Answer]:
        return await self.peer.ask([r._replace(drafter=self.drafter) for r in requests])


class Verdict(msgspec.Struct, frozen=True):
    """How a bar was met; `value` None: what it needs was not measured."""

    bar: str
    wanted: float
    value: float | None
    against: str | None
    met: bool | None


class Row(msgspec.Struct):
    """One line of the table. `values`: by column, one per round."""

    name: str
    unit: str
    higher_is_better: bool = True
    values: dict[str, list[float]] = {}
    failures: dict[str, str] = {}
    verdicts: list[Verdict] = []

    def median(self, column: str) -> float | None:
        return statistics.median(self.values[column]) if self.values.get(column) else None

    def ratio(self, ours: str, theirs: str) -> float:
        """Median over the rounds of how many times better `ours` was; both have been measured."""
        pairs = zip(self.values[ours], self.values[theirs], strict=True)
        return statistics.median(a / b if self.higher_is_better else b / a for a, b in pairs)

    def best(self, columns: Sequence[str]) -> str | None:
        medians = {name: value for name in columns if (value := self.median(name)) is not None}
        choose = max if self.higher_is_better else min
        return choose(medians, key=lambda name: medians[name]) if medians else None


Figures: TypeAlias = Mapping[str, float]
"""What one turn gave, by row name; a row a column has no figure for is left out."""
Trial: TypeAlias = Callable[[Column], Awaitable[Figures]]


async def alternate(
    columns: Sequence[Column], repeats: int, trial: Trial, rows: Sequence[Row], *, warm_up: bool
) -> None:
    """Fill `rows`. A column that fails once is out, with its reason and without figures."""
    order = list(columns)
    for number in range(-1 if warm_up else 0, repeats):
        for column in order[:]:
            await asyncio.sleep(SETTLE_S)
            try:
                figures = await trial(column)
            except PeerError as error:
                order.remove(column)
                _strike(rows, column.name, str(error))
                continue
            if number >= 0:
                _note(rows, column.name, figures)
        order = order[1:] + order[:1]


def _note(rows: Sequence[Row], column: str, figures: Figures) -> None:
    for row in rows:
        if row.name in figures:
            row.values.setdefault(column, []).append(figures[row.name])
            _progress(f"  {column}: {row.name}: {figures[row.name]:.4g} {row.unit}")


def _strike(rows: Sequence[Row], column: str, reason: str) -> None:
    for row in rows:
        row.values.pop(column, None)
        row.failures[column] = reason
    _progress(f"  {column}: {reason}")


def _progress(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
