"""From the draft model's own probability of a token to the chance that the upstream says the same.

The upstream is another model with another tokenizer and samples as it likes, so the draft model's
probability is only a clue. What became of drafted tokens is counted by that clue; the table begins
with what was measured of the embedded model along texts of an unrelated base model, and moves to
what is seen.
"""

from __future__ import annotations

from bisect import bisect_right

CLAIMS = (0.3, 0.5, 0.7, 0.85, 0.95, 0.99)
"""Where one class of claims ends and the next begins."""
GREEDY = (0.36, 0.52, 0.73, 0.91, 0.97, 0.99, 0.995)
"""Measured, by class, along text of an upstream at temperature 0; ..."""
SAMPLED = (0.25, 0.42, 0.59, 0.82, 0.93, 0.97, 0.98)
"""... and at 0.7."""
PRIOR_TOKENS = 24.0
"""How many tokens of a class must be seen until they weigh as much as its first value."""
MEMORY_TOKENS = 400.0
"""Tokens of a class after which what was seen counts half, so that a change is followed."""


class Calibration:
    """One upstream model's; all streams that sample alike share and feed it."""

    def __init__(self, *, greedy: bool) -> None:
        self._prior = GREEDY if greedy else SAMPLED
        self._seen = [0.0] * len(self._prior)
        self._stayed = [0.0] * len(self._prior)

    def chance(self, claim: float) -> float:
        """That a token stays if all before it do. `claim`: the draft model's probability of it."""
        at = bisect_right(CLAIMS, claim)
        stayed = self._stayed[at] + PRIOR_TOKENS * self._prior[at]
        return stayed / (self._seen[at] + PRIOR_TOKENS)

    def observe(self, claim: float, *, stayed: bool) -> None:
        """The fate of a token before which all stayed."""
        at = bisect_right(CLAIMS, claim)
        self._seen[at] += 1.0
        self._stayed[at] += stayed
        if self._seen[at] > MEMORY_TOKENS:
            self._seen[at] /= 2
            self._stayed[at] /= 2
