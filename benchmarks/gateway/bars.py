"""What delivery is asked to cost, and what it does."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from benchmarks.gateway.report import Bar

if TYPE_CHECKING:
    from benchmarks.gateway.report import Report

IN_PROCESS = "in process"
SOCKETS = "one core, sockets"
PACED = "100 streams × 50 frames/s"
MEMORY = "memory"

BARE_HOLD = "bare Starlette, frames of hold"
BARE_RETRACT = "bare Starlette, frames of retract"
WETINK_HOLD = "Wetink, hold"
WETINK_RETRACT = "Wetink, retract"
LITELLM = "LiteLLM proxy"
P99 = "Wetink: added latency p99"
HELD = "Wetink: per idle attached stream"

_LIMITS = (
    (IN_PROCESS, "hold", 7.0),
    (IN_PROCESS, "retract", 9.0),
    (IN_PROCESS, "hold, each further reader", 4.0),
    (IN_PROCESS, "retract, each further reader", 4.0),
    (PACED, P99, 5.0),
    (MEMORY, HELD, 50.0),
)
_RATIOS = (
    (WETINK_HOLD, BARE_HOLD, 0.6),
    (WETINK_RETRACT, BARE_RETRACT, 0.6),
    (WETINK_HOLD, LITELLM, 5.0),
)


def judge(report: Report) -> list[Bar]:
    return [
        *(_limit(report, group, name, wanted) for group, name, wanted in _LIMITS),
        *(_ratio(report, ours, theirs, wanted) for ours, theirs, wanted in _RATIOS),
    ]


def _limit(report: Report, group: str, name: str, wanted: float) -> Bar:
    values = report.values(group, name)
    unit = next((each.unit for each in report.figures if each.name == name), "")
    value = statistics.median(values) if values else None
    return Bar(f"{group}: {name}, {unit}", wanted, at_most=True, value=value)


def _ratio(report: Report, ours: str, theirs: str, wanted: float) -> Bar:
    """Compared within each round."""
    our_values, their_values = report.values(SOCKETS, ours), report.values(SOCKETS, theirs)
    value = None
    if our_values and their_values:
        pairs = zip(our_values, their_values, strict=True)
        value = statistics.median(mine / other for mine, other in pairs)
    return Bar(f"{SOCKETS}: {ours} ÷ {theirs}", wanted, at_most=False, value=value)
