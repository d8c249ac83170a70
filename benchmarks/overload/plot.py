"""Time to the first committed text by load, as a small SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.overload.__main__ import Outcome

WIDTH, HEIGHT = 420, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 100, 20, 44
COLOURS = {"bounded": "#1f6fb4", "unbounded": "#c0562f"}


def plot(outcomes: Sequence[Outcome]) -> str:
    """95th percentiles, one line per setting."""
    most_load = max(one.load for one in outcomes)
    most_s = max(one.p95_s for one in outcomes) * 1.1

    def x(load: float) -> float:
        return LEFT + load / most_load * (WIDTH - LEFT - RIGHT)

    def y(seconds: float) -> float:
        return HEIGHT - BOTTOM - seconds / most_s * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<path d="M{LEFT} {TOP}V{y(0):.1f}H{WIDTH - RIGHT}" fill="none" stroke="#444"/>',
        (
            f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">'
            "requests, in those that can be served</text>"
        ),
        (
            f'<g transform="translate(14 {HEIGHT / 2}) rotate(-90)">'
            '<text text-anchor="middle">95 % have committed text after, s</text></g>'
        ),
    ]
    parts += [
        f'<text x="{x(load):.1f}" y="{y(0) + 15:.1f}" text-anchor="middle">{load:g}×</text>'
        for load in sorted({one.load for one in outcomes})
    ]
    for share in (0.25, 0.5, 0.75, 1.0):
        seconds = most_s * share
        parts.append(
            f'<text x="{LEFT - 5}" y="{y(seconds) + 4:.1f}" text-anchor="end">{seconds:.1f}</text>'
        )
    for setting, colour in COLOURS.items():
        line = [one for one in outcomes if one.setting == setting]
        points = " ".join(f"{x(one.load):.1f},{y(one.p95_s):.1f}" for one in line)
        last = line[-1]
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}"/>')
        parts += [
            f'<circle cx="{x(one.load):.1f}" cy="{y(one.p95_s):.1f}" r="3" fill="{colour}">'
            f"<title>{setting}, {one.load:g}×: {one.p95_s:.2f} s, {one.refused:.0%} refused"
            "</title></circle>"
            for one in line
        ]
        parts.append(
            f'<text x="{x(last.load) + 8:.1f}" y="{y(last.p95_s) + 4:.1f}" fill="{colour}">'
            f"{setting}</text>"
        )
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="11">\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>\n{body}\n</svg>\n'
    )
