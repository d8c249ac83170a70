"""What drafted tokens turned out to be worth: running figures that let the past fade."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from engine.kernels.library import CHANCE_LEVELS, CHANCE_PLACES

if TYPE_CHECKING:
    from collections.abc import Sequence

PRIOR_TRIALS = 8.0
"""How many trials an assumption weighs, before anything was measured."""
FADE = 512.0
"""Trials at which counts are halved, so that what was measured long ago fades."""


EXPLORE_EVERY = 32
"""A match length that lost its confidence is tried again once in so many chances."""


class Acceptance:
    """Measured chance that one more drafted token is accepted, once those before it are."""

    def __init__(self, prior: float, fade: float = FADE) -> None:
        self._fade = fade
        self._hits = PRIOR_TRIALS * prior
        self._trials = PRIOR_TRIALS

    @property
    def chance(self) -> float:
        return self._hits / self._trials

    def observe(self, drafted: int, accepted: int) -> None:
        """Of `drafted` tokens the first `accepted` were right; those behind a wrong one say
        nothing.
        """
        self._trials += min(drafted, accepted + 1)
        self._hits += accepted
        if self._trials > self._fade:
            self._trials /= 2
            self._hits /= 2


class Calibration:
    """From a head's own probability of a token to the measured chance that it is accepted.

    By level of the probability, and by place in the draft as far as a place has had trials of its
    own: until then it goes by what is known of the level at all places.
    """

    def __init__(self, prior: Sequence[float]) -> None:
        """`prior` [CHANCE_LEVELS]: assumed chance at each level of probability."""
        self._prior = np.array(prior) * PRIOR_TRIALS
        self._hits = np.zeros((CHANCE_PLACES, CHANCE_LEVELS))
        self._trials = np.zeros((CHANCE_PLACES, CHANCE_LEVELS))
        self.table = np.empty((CHANCE_PLACES, CHANCE_LEVELS), np.float32)
        """Chance by place and level, read by the kernels; changes in place."""
        for level in range(CHANCE_LEVELS):
            self._update(level)

    def observe(self, probabilities: Sequence[float], drafted: int, accepted: int) -> None:
        """Of a draft's first `drafted` tokens, with these probabilities, `accepted` were right."""
        levels = [level_of(p) for p in probabilities[: min(drafted, accepted + 1)]]
        for place, level in enumerate(levels):
            self._trials[place, level] += 1.0
            self._hits[place, level] += place < accepted
            if self._trials[place, level] > FADE:
                self._trials[place, level] /= 2
                self._hits[place, level] /= 2
        for level in set(levels):
            self._update(level)

    def _update(self, level: int) -> None:
        hits, trials = self._hits[:, level], self._trials[:, level]
        usual = (hits.sum() + self._prior[level]) / (trials.sum() + PRIOR_TRIALS)
        self.table[:, level] = (hits + usual * PRIOR_TRIALS) / (trials + PRIOR_TRIALS)


class MatchChances:
    """Measured chance that a copied token is accepted, by the length of the match it rests on.

    The j-th token of a draft whose match is L tokens long rests, once those before it are accepted,
    on a match of L + j tokens. So one figure per length is enough, and the chance of a whole draft
    is the product along it.
    """

    __slots__ = ("_chances", "_hits", "_longest", "_trials")

    def __init__(self, prior: Sequence[float]) -> None:
        """`prior[m]`: assumed chance for a match of m tokens, the last one for all longer ones."""
        self._longest = len(prior) - 1
        self._hits = [chance * PRIOR_TRIALS for chance in prior]
        self._trials = [PRIOR_TRIALS] * len(prior)
        self._chances = [0] * len(prior)

    def chance(self, match: int) -> float:
        match = min(match, self._longest)
        return self._hits[match] / self._trials[match]

    def explore(self, match: int) -> bool:
        """Whether to draft one token although the chance is low, so that it can rise again."""
        match = min(match, self._longest)
        self._chances[match] += 1
        return self._chances[match] % EXPLORE_EVERY == 0

    def observe(self, match: int, drafted: int, accepted: int) -> None:
        """Of `drafted` tokens resting on a match of `match`, the first `accepted` were right."""
        for j in range(min(drafted, accepted + 1)):
            m = min(match + j, self._longest)
            self._trials[m] += 1.0
            if j < accepted:
                self._hits[m] += 1.0
            if self._trials[m] > FADE:
                self._trials[m] /= 2.0
                self._hits[m] /= 2.0


def level_of(probability: float) -> int:
    """As kernels/cpu/head.h finds it."""
    return min(int(probability * CHANCE_LEVELS), CHANCE_LEVELS - 1)
