"""How often drafted tokens are accepted, by place in the draft: the confidence of the next."""

from __future__ import annotations

MEMORY = 200.0
"""Judgements that count: the older ones fade, as drafts do better in one text than in another."""
ENOUGH = 20.0
"""Judgements before anything is said."""


class Acceptance:
    """Place i counts only where all before it were accepted: chances multiply along a draft."""

    def __init__(self) -> None:
        self._judged: list[float] = []
        self._accepted: list[float] = []

    def observe(self, drafted: int, accepted: int) -> None:
        """A draft of so many tokens was judged."""
        while len(self._judged) < drafted:
            self._judged.append(0.0)
            self._accepted.append(0.0)
        keep = 1.0 - 1.0 / MEMORY
        for place in range(min(drafted, accepted + 1)):
            self._judged[place] = self._judged[place] * keep + 1.0
            self._accepted[place] = self._accepted[place] * keep + (place < accepted)

    def chance(self, place: int) -> float | None:
        """That the token at `place` is accepted if all before it are; None: not known yet."""
        if place >= len(self._judged) or self._judged[place] < ENOUGH:
            return None
        return self._accepted[place] / self._judged[place]
