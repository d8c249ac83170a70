"""The table of docs/budget.md, between its markers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.budget.measures import Outcome

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
HEAD = """\
| speed | mix | policy | asked | NE, 95 % interval | worst answer | retractions per 256 tokens | \
gain, ms | lead, tokens |
|---|---|---|---|---|---|---|---|---|
"""


def put_table(page: Path, outcomes: Sequence[Outcome]) -> None:
    """Replaces what stands between the markers. Raises ValueError where there are none."""
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} lacks {BEGIN} or {END}")
    rows = "".join(_row(outcome) for outcome in outcomes)
    page.write_text(f"{before}{BEGIN}\n{HEAD}{rows}{END}{after}", encoding="utf-8")


def _row(one: Outcome) -> str:
    asked = "–" if one.asked is None else f"{one.asked:g}"
    return (
        f"| {one.speed} | {one.mix} | `{one.policy}` | {asked} |"
        f" {one.ne:.3f} ({one.ne_low:.3f} … {one.ne_high:.3f}) | {one.worst_ne:.3f} |"
        f" {one.retractions:.0f} | {one.gain_ms:.1f} | {one.lead_tokens:.2f} |\n"
    )
