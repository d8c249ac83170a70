"""An EAGLE-3 head proposes (Li et al. 2025): it reads what the target computed for the last token.

It draws with the target's own noise (see sampling/sampler.py), so where the two distributions are
close the two tokens are mostly the same one. Nothing is kept here per stream but the last proposal:
what the head has read lies in the sequence's own blocks.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from engine.drafters.acceptance import Acceptance, Calibration
from engine.drafters.base import Proposal
from engine.model.native_head import DraftItem
from engine.scheduling.draft_length import least_chance

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engine.drafters.base import SequenceView
    from engine.model.native_head import HeadRunner
    from engine.sampling.sampler import Sampler
    from engine.scheduling.draft_length import StepCost
    from engine.scheduling.sequence import Sequence as EngineSequence

PRIOR_ACCEPTANCE = 0.6
EXPLORE_EVERY = 64
"""Where drafting does not seem to pay it is tried once in so many chances, so that it can again."""
WARM = 0.5
"""Noise makes the same probability worth less: greedy texts, those up to this temperature and those
above are calibrated apart.
"""
# fmt: off
_QUIET = (0.08, 0.18, 0.27, 0.33, 0.43, 0.51, 0.60, 0.62,
          0.66, 0.76, 0.80, 0.80, 0.88, 0.91, 0.95, 0.99)
_NOISY = (0.25, 0.32, 0.43, 0.44, 0.46, 0.55, 0.55, 0.58,
          0.68, 0.70, 0.73, 0.75, 0.83, 0.90, 0.92, 0.98)
# fmt: on
PRIORS = (_QUIET, _QUIET, _NOISY)
"""Measured with the embedded model and its head, by sixteenths of the head's own probability, at
temperatures 0, 0.3 and 0.8; a place in the draft made no difference.
"""


class EagleDrafter:
    """A `Drafter` over a head that runs beside the target."""

    name = "head"

    def __init__(
        self,
        runner: HeadRunner,
        sequences: Mapping[str, EngineSequence],
        samplers: Mapping[str, Sampler],
        *,
        verify: StepCost,
        draft: StepCost | None,
    ) -> None:
        """`sequences` and `samplers` are the engine's own, by stream; read here, never changed.

        `verify`: seconds of a step by rows. `draft`: seconds per drafted token by sequences; None:
        always draft as much as is asked for.
        """
        self._runner = runner
        self._sequences = sequences
        self._samplers = samplers
        self._verify = verify
        self._draft = draft
        self._acceptance = Acceptance(PRIOR_ACCEPTANCE)
        self._calibrations = [Calibration(prior) for prior in PRIORS]
        self._last: dict[str, tuple[Calibration, list[float]]] = {}
        """By stream: the last proposal's probabilities, and who has to learn from them."""
        self._declined = 0

    def begin(self, stream: str, prompt: Sequence[int], prediction: Sequence[int]) -> None:
        """Nothing to prepare."""

    def propose(self, items: Sequence[tuple[SequenceView, int]]) -> list[Proposal]:
        """Drafts of all items in one call. None for a sequence whose last token's predecessor is
        still to be computed in this step. Mutates the head's cache.
        """
        proposals = [Proposal([], []) for _ in items]
        asked: list[tuple[int, DraftItem, Calibration]] = []
        for number, (view, limit) in enumerate(items):
            self._last.pop(view.stream, None)
            sequence, sampler = self._sequences[view.stream], self._samplers[view.stream]
            if limit < 1 or sequence.pending > 1 or len(sequence) < 2:
                continue
            calibration = self._calibrations[_warmth(sampler)]
            item = DraftItem(
                sampler,
                sequence.tokens,
                sequence.prompt_length,
                sequence.block_table,
                limit,
                calibration.table,
            )
            asked.append((number, item, calibration))
        floor = self._floor([item.limit for _, item, _ in asked])
        if not asked or floor >= 1.0:
            return proposals
        usual = self._acceptance.chance
        drafts = self._runner.draft([item for _, item, _ in asked], floor=floor, usual=usual)
        for (number, _, calibration), draft in zip(asked, drafts, strict=True):
            proposals[number] = Proposal(draft.tokens, draft.confidence)
            self._last[items[number][0].stream] = (calibration, draft.probabilities)
        return proposals

    def observe(self, stream: str, drafted: int, accepted: int) -> None:
        last = self._last.pop(stream, None)
        if last is not None:
            calibration, probabilities = last
            calibration.observe(probabilities, drafted, accepted)
            self._acceptance.observe(drafted, accepted)

    def end(self, stream: str) -> None:
        self._last.pop(stream, None)

    def expected(self, limit: int) -> float:
        """How many tokens of a draft of `limit` are usually right."""
        chance = self._acceptance.chance
        return sum(chance ** (n + 1) for n in range(limit))

    def _floor(self, limits: list[int]) -> float:
        """Chance under which a further token is not worth its time; 1: none is."""
        if self._draft is None or not limits:
            return 0.0
        floor = least_chance(
            self._acceptance.chance, max(limits), len(limits), self._verify, self._draft
        )
        if floor < 1.0:
            return floor
        self._declined += 1
        # The first token of each draft is made whatever the floor.
        return math.nextafter(1.0, 0.0) if self._declined % EXPLORE_EVERY == 0 else 1.0


def _warmth(sampler: Sampler) -> int:
    if sampler.greedy:
        return 0
    return 1 if sampler.temperature <= WARM else 2
