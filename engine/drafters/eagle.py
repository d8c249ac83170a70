"""An EAGLE-3 head proposes (Li et al. 2025): it reads what the target computed for the last token.

It draws with the target's own noise (see sampling/sampler.py), so where the two distributions are
close the two tokens are mostly the same one. Nothing is kept here per stream but the last proposal:
what the head has read lies in the sequence's own blocks.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.drafters.acceptance import Acceptance, Calibration
from engine.drafters.base import Proposal
from engine.model.draft_head import DraftItem
from engine.scheduling.draft_length import DraftPlan, PlanOutcome, planned

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engine.drafters.base import SequenceView
    from engine.model.draft_head import HeadDraft, HeadRunner
    from engine.sampling.sampler import Sampler
    from engine.scheduling.draft_length import Seconds
    from engine.scheduling.running_cost import RunningCost
    from engine.scheduling.sequence import Sequence as EngineSequence

PRIOR_ACCEPTANCE = 0.6
EXPLORE_EVERY = 64
"""Where drafting does not seem to pay it is tried once in so many chances, so that it can again."""
REPLAN_EVERY = 8
"""Where drafting does not seem to pay, it is planned once in so many chances, for planning takes
time too. A divisor of EXPLORE_EVERY.
"""
RECENT = 64.0
"""Trials at which a stream's own counts are halved: a text changes its kind faster than a server
its streams.
"""
NOBODY = DraftPlan([], 1.0)
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


@dataclass
class _Pending:
    """A plan that was followed, and what is known of it so far."""

    plan: DraftPlan
    rows: int
    """Of the step without drafts."""
    seconds: float
    """Drafting took."""
    drafted: int = 0
    """Tokens verified."""
    accepted: int = 0


class EagleDrafter:
    """A `Drafter` over a head that runs beside the target."""

    name = "head"

    def __init__(
        self,
        runner: HeadRunner,
        sequences: Mapping[str, EngineSequence],
        samplers: Mapping[str, Sampler],
        *,
        step: Seconds,
        draft: RunningCost | None,
    ) -> None:
        """`sequences` and `samplers` are the engine's own, by stream; read here, never changed.

        `step`: seconds of a step by rows. `draft`: seconds of a pass by sequences, told what passes
        really take; None: always draft as much as is asked for.
        """
        self._runner = runner
        self._sequences = sequences
        self._samplers = samplers
        self._step = step
        self._draft = draft
        self._acceptance = Acceptance(PRIOR_ACCEPTANCE)
        self._calibrations = [Calibration(prior) for prior in PRIORS]
        self._own: dict[str, Acceptance] = {}
        self._last: dict[str, tuple[Calibration, list[float]]] = {}
        """By stream: the last proposal's probabilities, and who has to learn from them."""
        self._outcomes: defaultdict[int, PlanOutcome] = defaultdict(PlanOutcome)
        """By the magnitude of the step: more rows are surer ones, and dearer."""
        self._pending: _Pending | None = None
        self._declined = 0

    def begin(self, stream: str, prompt: Sequence[int], prediction: Sequence[int]) -> None:
        """Nothing to prepare."""

    def propose(self, items: Sequence[tuple[SequenceView, int]]) -> list[Proposal]:
        """Drafts of all items in one call. None for a sequence whose last token's predecessor is
        still to be computed in this step. Mutates the head's cache.
        """
        self._settle()
        proposals = [Proposal([], []) for _ in items]
        ready = [n for n, (view, limit) in enumerate(items) if self._can_draft(view, limit)]
        for view, _ in items:
            self._last.pop(view.stream, None)
        plan = self._plan([items[n] for n in ready], len(items))
        numbers = [ready[n] for n in plan.asked]
        if not numbers:
            return proposals
        calibrations = [self._calibration(items[n][0].stream) for n in numbers]
        asked: list[DraftItem] = []
        for n, calibration in zip(numbers, calibrations, strict=True):
            sequence = self._sequences[items[n][0].stream]
            asked.append(
                DraftItem(
                    self._samplers[sequence.stream],
                    sequence.tokens,
                    sequence.prompt_length,
                    sequence.block_table,
                    items[n][1],
                    calibration.table,
                )
            )
        begun = time.perf_counter()
        drafts = self._runner.draft(asked, floor=plan.floor, usual=self._acceptance.chance)
        took = time.perf_counter() - begun
        self._pending = _Pending(plan, len(items), took)
        self._learn_cost(drafts, took)
        for n, calibration, draft in zip(numbers, calibrations, drafts, strict=True):
            proposals[n] = Proposal(draft.tokens, draft.confidence)
            self._last[items[n][0].stream] = (calibration, draft.probabilities)
        return proposals

    def observe(self, stream: str, drafted: int, accepted: int) -> None:
        last = self._last.pop(stream, None)
        if last is not None:
            calibration, probabilities = last
            calibration.observe(probabilities, drafted, accepted)
            own = self._own.get(stream)
            if own is None:
                own = self._own[stream] = Acceptance(self._acceptance.chance, RECENT)
            own.observe(drafted, accepted)
            self._acceptance.observe(drafted, accepted)
            if self._pending is not None:
                self._pending.drafted += drafted
                self._pending.accepted += accepted

    def end(self, stream: str) -> None:
        self._last.pop(stream, None)
        self._own.pop(stream, None)

    def expected(self, stream: str, limit: int) -> float:
        """How many tokens of a draft of `limit` are usually right."""
        chance = self._chance(stream)
        return sum(chance ** (n + 1) for n in range(limit))

    def _can_draft(self, view: SequenceView, limit: int) -> bool:
        sequence = self._sequences[view.stream]
        return limit > 0 and sequence.pending == 1 and len(sequence) > 1

    def _calibration(self, stream: str) -> Calibration:
        return self._calibrations[_warmth(self._samplers[stream])]

    def _chance(self, stream: str) -> float:
        own = self._own.get(stream)
        return (self._acceptance if own is None else own).chance

    def _plan(self, items: Sequence[tuple[SequenceView, int]], rows: int) -> DraftPlan:
        """Whose drafts are worth their time, of `items`, in a step of `rows` rows."""
        everybody = list(range(len(items)))
        if self._draft is None or not items:
            return DraftPlan(everybody, 0.0)
        chances = [self._chance(view.stream) for view, _ in items]
        limit = max(limit for _, limit in items)
        if self._declined % REPLAN_EVERY == 0:
            outcome = self._outcomes[rows.bit_length()]
            plan = planned(chances, limit, rows, self._step, self._draft, outcome)
            if plan.asked:
                return plan
        self._declined += 1
        if self._declined % EXPLORE_EVERY:
            return NOBODY
        # The first token of each draft is made whatever the floor.
        return DraftPlan(
            everybody,
            math.nextafter(1.0, 0.0),
            sum(chances),
            self._draft(len(items)) + self._step(rows + len(items)) - self._step(rows),
        )

    def _settle(self) -> None:
        """By now it is known what came of the last plan."""
        pending, self._pending = self._pending, None
        if pending is None or self._draft is None:
            return
        verifying = self._step(pending.rows + pending.drafted) - self._step(pending.rows)
        self._outcomes[pending.rows.bit_length()].observe(
            pending.plan, pending.accepted, pending.seconds + verifying
        )

    def _learn_cost(self, drafts: list[HeadDraft], seconds: float) -> None:
        """Compare what the last call took with what its passes were thought to."""
        if self._draft is None:
            return
        expected = sum(self._draft(count) for count in self._runner.passes(drafts))
        share = self._draft(len(drafts)) / expected
        self._draft.observe(len(drafts), seconds * share)


def _warmth(sampler: Sampler) -> int:
    if sampler.greedy:
        return 0
    return 1 if sampler.temperature <= WARM else 2
