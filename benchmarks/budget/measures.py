"""From what single readers saw to a figure with its interval."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from protocol.requests import StreamRetract

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.budget.replay import Reading
    from protocol.requests import PolicySpec

NORMAL_95 = 1.96


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One policy over all answers of one mix at one speed."""

    speed: str
    mix: str
    policy: str
    asked: float | None
    """The budget; None: hold, or no budget."""
    answers: int
    tokens: int
    ne: float
    """Code points taken back per committed one, over all answers."""
    ne_low: float
    ne_high: float
    """Its 95 % interval."""
    worst_ne: float
    """Of a single answer."""
    retractions: float
    """Per 256 tokens."""
    gain_ms: float
    """Speculative gain: how much earlier than under `hold` a code point is there for good, mean."""
    lead_tokens: float
    """Tokens on show that stay and are not committed yet, mean over time."""
    ttfv_gain_ms: float
    """How much earlier than under `hold` the first text is there, mean."""

    def line(self) -> str:
        return (
            f"{self.speed:6} {self.mix:8} {self.policy:13} NE {self.ne:.3f}"
            f" ({self.ne_low:.3f} … {self.ne_high:.3f}), {self.retractions:.0f} retractions,"
            f" gain {self.gain_ms:.1f} ms, lead {self.lead_tokens:.2f} tokens"
        )


def summarised(
    speed: str, mix: str, name: str, policy: PolicySpec, readings: Sequence[Reading]
) -> Outcome:
    committed = sum(one.committed for one in readings)
    tokens = sum(one.tokens for one in readings)
    ne, half = ratio([(one.erased, one.committed) for one in readings])
    gained_s = sum(one.held_s - one.waited_s for one in readings)
    return Outcome(
        speed=speed,
        mix=mix,
        policy=name,
        asked=policy.budget if isinstance(policy, StreamRetract) else None,
        answers=len(readings),
        tokens=tokens,
        ne=ne,
        ne_low=max(0.0, ne - half),
        ne_high=ne + half,
        worst_ne=max(one.erased / max(1, one.committed) for one in readings),
        retractions=256 * sum(one.retractions for one in readings) / max(1, tokens),
        gain_ms=1000 * gained_s / committed,
        # Little's law, in code points; then in tokens.
        lead_tokens=gained_s / sum(one.lasted_s for one in readings) * tokens / committed,
        ttfv_gain_ms=1000 * sum(one.ttc_s - one.ttfv_s for one in readings) / len(readings),
    )


def ratio(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Sum of the first over sum of the second, and half the width of its 95 % interval: the ratio
    estimator's, with each answer as one cluster (Cochran, Sampling Techniques, section 6.4).
    """
    total = sum(below for _, below in pairs)
    estimate = sum(above for above, _ in pairs) / total
    count = len(pairs)
    if count < 2:
        return estimate, math.inf
    squares = sum((above - estimate * below) ** 2 for above, below in pairs)
    return estimate, NORMAL_95 * math.sqrt(squares * count / (count - 1)) / total
