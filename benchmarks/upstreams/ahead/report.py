"""The results as a table between the markers of docs/upstreams.md, and as a plot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from benchmarks.budget.measures import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PAGE, PLOT = "upstreams.md", "ahead.svg"
BEGIN, END = "<!-- ahead: begin -->", "<!-- ahead: end -->"
HEAD = """\
| text | temperature | policy | taken back per committed, 95 % interval | first text earlier, ms | \
all text earlier, mean, ms |
|---|---|---|---|---|---|
"""
IN_TABLE = ("retract:0.02", "retract:0.05", "retract:0.1", "retract")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 460, 320, 52, 14, 16, 44
COLOURS = {"chat": "#1f6fb4", "code": "#2e8b57", "summary": "#c0562f", "all": "#444"}
DASHES = {"0": "", "0.7": "4 3", "all": ""}


class Report(msgspec.Struct, frozen=True, kw_only=True):
    outcomes: list[Outcome]
    """`speed` is the upstream's temperature."""
    cpu_share: float
    """Seconds of processor that the drafting engine took per second of a stream."""
    drafted_per_token: float
    """Drafted per token of the upstream; ..."""
    accepted: float
    """... share of these that it has said too."""
    fast_ratio: float
    """Time of a stream from a fast upstream, with a draft ahead over without; median."""


def put(folder: Path, report: Report) -> None:
    """Raises ValueError where the page has no markers."""
    page = folder / PAGE
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} lacks {BEGIN} or {END}")
    rows = "".join(_row(one) for one in report.outcomes if one.policy in IN_TABLE)
    figures = (
        f"\nThe drafting engine took {report.cpu_share:.2f} s of one core per second of a stream, "
        f"drafted {report.drafted_per_token:.2f} tokens per token of the upstream, and "
        f"{report.accepted:.0%} of them were said. A stream from a fast upstream took "
        f"{report.fast_ratio:.3f} times as long as without drafts ahead.\n"
    )
    page.write_text(f"{before}{BEGIN}\n{HEAD}{rows}{figures}{END}{after}", encoding="utf-8")
    (folder / PLOT).write_text(plot(report.outcomes), encoding="utf-8")


def _row(one: Outcome) -> str:
    return (
        f"| {one.mix} | {one.speed} | `{one.policy}` |"
        f" {one.ne:.3f} ({one.ne_low:.3f} … {one.ne_high:.3f}) |"
        f" {one.ttfv_gain_ms:.0f} | {one.gain_ms:.0f} |\n"
    )


def plot(outcomes: Sequence[Outcome]) -> str:
    """Mean lead against erasure: from `hold` at 0, 0 through the budgets to plain `retract`."""
    most_ne = max(one.ne for one in outcomes) * 1.05 or 1.0
    most_gain = max(one.gain_ms for one in outcomes) * 1.1 or 1.0

    def x(ne: float) -> float:
        return LEFT + ne / most_ne * (WIDTH - LEFT - RIGHT)

    def y(gain: float) -> float:
        return HEIGHT - BOTTOM - max(0.0, gain) / most_gain * (HEIGHT - TOP - BOTTOM)

    floor = y(0)
    parts = [
        f'<path d="M{LEFT} {TOP}V{floor:.1f}H{WIDTH - RIGHT}" fill="none" stroke="#444"/>',
        _label(f'x="{WIDTH / 2}" y="{HEIGHT - 8}"', "taken back per committed"),
        _label(f'transform="translate(14 {HEIGHT / 2}) rotate(-90)"', "text earlier by, mean, ms"),
    ]
    for share in (0.25, 0.5, 0.75, 1.0):
        ne, gain = most_ne * share, most_gain * share
        parts.append(
            f'<text x="{x(ne):.1f}" y="{floor + 15:.1f}" text-anchor="middle">{ne:.2f}</text>'
            f'<text x="{LEFT - 5}" y="{y(gain) + 4:.1f}" text-anchor="end">{gain:.0f}</text>'
        )
    series = list(dict.fromkeys((one.mix, one.speed) for one in outcomes))
    for number, (mix, temperature) in enumerate(series):
        line = [one for one in outcomes if (one.mix, one.speed) == (mix, temperature)]
        points = " ".join(f"{x(one.ne):.1f},{y(one.gain_ms):.1f}" for one in line)
        colour, dash = COLOURS[mix], DASHES[temperature]
        name = mix if mix == "all" else f"{mix}, temperature {temperature}"
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-dasharray="{dash}"/>'
            f'<text x="{WIDTH - RIGHT - 4}" y="{floor - 10 - 14 * number:.1f}" '
            f'text-anchor="end" fill="{colour}">{name}{" (dashed)" if dash else ""}</text>'
        )
        parts += [
            f'<circle cx="{x(one.ne):.1f}" cy="{y(one.gain_ms):.1f}" r="3" fill="{colour}">'
            f"<title>{name}, {one.policy}: {one.ne:.3f}, {one.gain_ms:.0f} ms</title></circle>"
            for one in line
        ]
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="11">\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>\n{body}\n</svg>\n'
    )


def _label(place: str, text: str) -> str:
    return f'<text {place} text-anchor="middle">{text}</text>'
