"""Speculative gain against normalized erasure, as a small SVG: one panel per speed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.budget.measures import Outcome

WIDTH, HEIGHT = 380, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 34, 44
COLOURS = {"chat": "#1f6fb4", "code": "#2e8b57", "shifted": "#c0562f"}


def plot(outcomes: Sequence[Outcome]) -> str:
    """Each line goes from `hold` (at 0, 0) through the budgets to `retract` without one."""
    speeds = list(dict.fromkeys(one.speed for one in outcomes))
    panels = "".join(
        f'<g transform="translate({number * WIDTH} 0)">'
        + _panel(speed, [one for one in outcomes if one.speed == speed])
        + "</g>\n"
        for number, speed in enumerate(speeds)
    )
    width = WIDTH * len(speeds)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" '
        f'width="{width}" height="{HEIGHT}" font-family="sans-serif" font-size="11">\n'
        f'<rect width="{width}" height="{HEIGHT}" fill="white"/>\n{panels}</svg>\n'
    )


def _panel(speed: str, outcomes: Sequence[Outcome]) -> str:
    most_ne = max(one.ne for one in outcomes) * 1.05
    most_gain = max(one.gain_ms for one in outcomes) * 1.1

    def x(ne: float) -> float:
        return LEFT + ne / most_ne * (WIDTH - LEFT - RIGHT)

    def y(gain: float) -> float:
        return HEIGHT - BOTTOM - gain / most_gain * (HEIGHT - TOP - BOTTOM)

    floor, middle = y(0), WIDTH / 2
    parts = [
        f'<path d="M{LEFT} {TOP}V{floor:.1f}H{WIDTH - RIGHT}" fill="none" stroke="#444"/>',
        f'<text x="{middle}" y="18" text-anchor="middle" font-size="13">{speed} speed</text>',
        f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">normalized erasure</text>',
        (
            f'<g transform="translate(14 {HEIGHT / 2}) rotate(-90)">'
            '<text text-anchor="middle">speculative gain, ms</text></g>'
        ),
    ]
    for share in (0.25, 0.5, 0.75, 1.0):
        ne, gain = most_ne * share, most_gain * share
        parts.append(
            f'<text x="{x(ne):.1f}" y="{floor + 15:.1f}" text-anchor="middle">{ne:.2f}</text>'
            f'<text x="{LEFT - 5}" y="{y(gain) + 4:.1f}" text-anchor="end">{gain:.0f}</text>'
        )
    for number, (mix, colour) in enumerate(COLOURS.items()):
        line = [one for one in outcomes if one.mix == mix]
        points = " ".join(f"{x(one.ne):.1f},{y(one.gain_ms):.1f}" for one in line)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}"/>')
        parts += [
            f'<circle cx="{x(one.ne):.1f}" cy="{y(one.gain_ms):.1f}" r="3" fill="{colour}">'
            f"<title>{mix}, {one.policy}: NE {one.ne:.3f}, {one.gain_ms:.1f} ms</title></circle>"
            for one in line
        ]
        parts.append(
            f'<text x="{WIDTH - RIGHT - 4}" y="{floor - 10 - 14 * number:.1f}" '
            f'text-anchor="end" fill="{colour}">{mix}</text>'
        )
    return "\n".join(parts)
