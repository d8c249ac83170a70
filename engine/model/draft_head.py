"""What a draft head is asked and answers, whoever runs it, and what a drafted token costs."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from engine.kernels.library import CHANCE_LEVELS, CHANCE_PLACES
from engine.model.runner import PROFILE_CONTEXT, PROFILE_ROUNDS
from engine.sampling.params import SamplingParams
from engine.sampling.sampler import Sampler
from engine.scheduling.draft_length import StepCost

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

PROFILE_SEQUENCES = (1, 2, 4, 8, 16, 32)
PROFILE_LENGTH = 4
"""Tokens of a profiled draft."""


class DraftItem(NamedTuple):
    """A sequence to draft for: all its tokens but the last are computed, and there are two or more.

    `block_table` reaches `limit` tokens behind the last. `chances` float32 [16, 16]: see
    `Calibration` in drafters/acceptance.py.
    """

    sampler: Sampler
    tokens: list[int]
    prompt_length: int
    block_table: list[int]
    limit: int
    chances: NDArray[np.float32]


class HeadDraft(NamedTuple):
    tokens: list[int]
    probabilities: list[float]
    """Of each token by the head's own logits, before temperature and penalties."""
    confidence: list[float]


class HeadRunner(Protocol):
    """A head over the cache of its target. `NativeHeadRunner` is our own kernels on CPUs,
    `GraphHeadRunner` torch on GPUs.
    """

    def draft(self, items: Sequence[DraftItem], *, floor: float, usual: float) -> list[HeadDraft]:
        """At most `limit` tokens for each item; writes the head's cache behind their last tokens.

        A draft stops where its confidence, times `usual`, is below `floor`, and before a token that
        ends a text.
        """
        ...

    def passes(self, drafts: Sequence[HeadDraft]) -> list[int]:
        """How many sequences each pass of the last call, which gave `drafts`, computed."""
        ...

    def profile(self, num_blocks: int) -> StepCost:
        """Seconds per drafted token by sequences drafted for at once. Overwrites the cache."""
        ...


class Profiled(NamedTuple):
    """What of a head a profile has to know."""

    vocab: int
    """The target's."""
    context: int
    block_size: int


def profiled_drafts(
    draft: Callable[[list[DraftItem]], list[HeadDraft]],
    made: Callable[[list[HeadDraft]], int],
    head: Profiled,
    num_blocks: int,
) -> StepCost:
    """`made`: how many passes a call that gave such drafts made."""
    table = list(range(min(num_blocks, -(-PROFILE_CONTEXT // head.block_size))))
    end = min(len(table) * head.block_size, head.context)
    sampler = Sampler(SamplingParams(temperature=0.0), 0, head.vocab)
    sure = np.ones((CHANCE_PLACES, CHANCE_LEVELS), np.float32)
    item = DraftItem(sampler, [0] * (end - PROFILE_LENGTH), 1, table, PROFILE_LENGTH, sure)
    fastest = dict.fromkeys(PROFILE_SEQUENCES, math.inf)
    for number in range(PROFILE_ROUNDS + 1):
        for count in PROFILE_SEQUENCES:
            begin = time.perf_counter()
            drafts = draft([item] * count)
            seconds = time.perf_counter() - begin
            if number:
                fastest[count] = min(fastest[count], seconds / made(drafts))
    return StepCost(list(fastest.items()))
