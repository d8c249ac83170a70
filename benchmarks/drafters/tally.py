"""What one drafter did over some streams, counted."""

from __future__ import annotations

import msgspec

LEVELS = 10
"""Bins of confidence for the calibration error."""
FEW = 20
"""Tokens under which a place in the draft gets no figure."""


class Bin(msgspec.Struct):
    """Tokens of like confidence."""

    confidence: float = 0.0
    """Its sum."""
    right: int = 0
    count: int = 0


class Tally(msgspec.Struct):
    tokens: int = 0
    """Committed in steps of verification alone: no prompt was read in them."""
    sequence_steps: int = 0
    """These steps, each counted once per sequence in it."""
    seconds: float = 0.0
    """Their time."""
    drafted: int = 0
    accepted: int = 0
    right: list[list[int]] = []
    """By place in the draft: tokens that were right, tokens reached."""
    bins: list[Bin] = msgspec.field(default_factory=lambda: [Bin() for _ in range(LEVELS)])
    """Of tokens that were reached, those before them being right, by their own confidence."""
    whole: list[Bin] = msgspec.field(default_factory=lambda: [Bin() for _ in range(LEVELS)])
    """Of all drafted tokens, by the chance that they and all before them are right."""

    def judge(self, drafted: list[tuple[int, float]], said: list[int], *, ended: bool) -> None:
        """A draft as (token, its own confidence), and what the target said from there on.

        `ended`: the target ended the text after `said`; else what came after is not known.
        """
        right, chance = True, 1.0
        for place, (token, confidence) in enumerate(drafted):
            if right and place >= len(said) and not ended:
                return
            reached, right = right, right and place < len(said) and token == said[place]
            chance *= confidence
            _count(self.whole, chance, right)
            if not reached:
                continue
            if place == len(self.right):
                self.right.append([0, 0])
            self.right[place][0] += right
            self.right[place][1] += 1
            _count(self.bins, confidence, right)

    def add(self, other: Tally) -> None:
        """Take in what another one counted."""
        self.tokens += other.tokens
        self.sequence_steps += other.sequence_steps
        self.seconds += other.seconds
        self.drafted += other.drafted
        self.accepted += other.accepted
        for place, (hits, reached) in enumerate(other.right):
            if place == len(self.right):
                self.right.append([0, 0])
            self.right[place][0] += hits
            self.right[place][1] += reached
        for own, theirs in ((self.bins, other.bins), (self.whole, other.whole)):
            for mine, more in zip(own, theirs, strict=True):
                mine.confidence += more.confidence
                mine.right += more.right
                mine.count += more.count

    @property
    def rate(self) -> float:
        """Tokens per second, all streams together."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def tokens_per_step(self) -> float:
        return self.tokens / self.sequence_steps if self.sequence_steps else 0.0

    @property
    def judged(self) -> int:
        return sum(b.count for b in self.bins)

    @property
    def by_place(self) -> list[float]:
        return [hits / reached for hits, reached in self.right if reached > FEW]


def calibration_error(bins: list[Bin]) -> float:
    """Expected: the bins' distance of confidence and acceptance, weighed by their tokens."""
    count = sum(b.count for b in bins)
    return sum(abs(b.confidence - b.right) for b in bins) / count if count else 0.0


def _count(bins: list[Bin], confidence: float, right: bool) -> None:
    found = bins[min(int(confidence * LEVELS), LEVELS - 1)]
    found.confidence += confidence
    found.right += right
    found.count += 1
