"""Who drafts what in a step: asks the drafters, keeps of their drafts what is worth verifying."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.drafters.base import Proposal
from engine.drafters.model import ModelDrafter
from engine.errors import EngineRequestError
from engine.scheduling.draft_length import drafting_limit, worthwhile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engine.drafters.base import Drafter
    from engine.sampling.grammars import Grammars
    from engine.sampling.sampler import Sampler
    from engine.scheduling.draft_length import StepCost
    from engine.scheduling.running_cost import StepSeconds
    from engine.scheduling.scheduler import Scheduled
    from engine.scheduling.sequence import Sequence as EngineSequence

NO_DRAFT = Proposal([], [])
OFF = "none"
"""The drafter of a stream without drafts."""


class Drafting:
    """All drafters of an engine, and what their drafts cost. Used by the engine's thread only."""

    def __init__(
        self,
        drafters: dict[str, Drafter],
        samplers: Mapping[str, Sampler],
        grammars: Grammars,
        *,
        default: str,
        special: frozenset[int],
        step_seconds: StepSeconds,
        pass_cost: StepCost | None,
        adaptive: bool,
    ) -> None:
        """`samplers`, `grammars`: the engine's own, by stream; read here. `special`: tokens that
        are never drafted. `pass_cost`: seconds of a draft model's pass by sequences, None without
        one. Not `adaptive`: drafts are always as long as was asked for.
        """
        self._drafters = drafters
        self._samplers = samplers
        self._grammars = grammars
        self.default = default
        self._special = special
        self._step_seconds = step_seconds
        self._pass_cost = pass_cost
        self._adaptive = adaptive

    @property
    def names(self) -> list[str]:
        return sorted(self._drafters)

    @property
    def pause_s(self) -> float:
        """What a demonstration adds to every step; drafts are as long as if it took that long."""
        return self._step_seconds.pause

    @pause_s.setter
    def pause_s(self, seconds: float) -> None:
        self._step_seconds.pause = seconds

    def chosen(self, asked: str | None) -> str:
        """The drafter a request gets. Raises EngineRequestError when it is not loaded."""
        name = asked or self.default
        if name != OFF and name not in self._drafters:
            raise EngineRequestError(
                "invalid_value",
                f"drafter {name!r} is not loaded; loaded: {', '.join(self.names)}",
                "draft.drafter",
            )
        return name

    def begin(self, sequence: EngineSequence, prediction: Sequence[int]) -> None:
        """`prediction`: tokens of the caller's guess at the output, or none."""
        if sequence.max_draft:
            prompt = sequence.tokens[: sequence.prompt_length]
            self._drafters[sequence.drafter].begin(sequence.stream, prompt, prediction)

    def propose(self, plan: Sequence[Scheduled]) -> list[Proposal]:
        """A proposal per scheduled sequence, cut to what is worth verifying in this step."""
        rows = sum(item.rows for item in plan)
        noisy = sum(not self._samplers[item.sequence.stream].greedy for item in plan)
        self._step_seconds.plan(len(plan), noisy)
        forced = [self._grammars.forced(i.sequence.stream, i.draft_limit) for i in plan]
        proposals = [proposal or NO_DRAFT for proposal in forced]
        for name, drafter in self._drafters.items():
            members = [
                n
                for n, item in enumerate(plan)
                if item.draft_limit and item.sequence.drafter == name and forced[n] is None
            ]
            if not members:
                continue
            items = [
                (plan[n].sequence, self._limit(drafter, plan[n].draft_limit, len(members)))
                for n in members
            ]
            for n, proposal in zip(members, drafter.propose(items), strict=True):
                stream = plan[n].sequence.stream
                proposals[n] = self._grammars.cut(stream, self._without_special(proposal))
        if not self._adaptive:
            return proposals
        kept = worthwhile(proposals, rows, self._step_seconds)
        return [p.first(k) for p, k in zip(proposals, kept, strict=True)]

    def observe(self, sequence: EngineSequence, draft: Proposal, accepted: int) -> None:
        """The verdict on the sequence's last proposal; its drafter is told, if it was one's."""
        if draft.tokens and not draft.forced:
            self._drafters[sequence.drafter].observe(sequence.stream, len(draft.tokens), accepted)

    def took(
        self, plan: Sequence[Scheduled], rows: int, *, forward: float, judged: float, around: float
    ) -> None:
        """What the step planned last took, in seconds: to compute its `rows`, drafts included, to
        choose tokens from them, and for all else but drafting.
        """
        # Prefill costs something else by row, and says nothing about drafts.
        if all(item.samples and item.rows == 1 for item in plan):
            self._step_seconds.observe(
                sequences=len(plan), rows=rows, forward=forward, judged=judged, around=around
            )

    def end(self, sequence: EngineSequence) -> None:
        if sequence.max_draft:
            self._drafters[sequence.drafter].end(sequence.stream)

    def close(self) -> None:
        """Let go of the drafters and their models."""
        self._drafters.clear()

    def _limit(self, drafter: Drafter, limit: int, sequences: int) -> int:
        """Most tokens to ask a drafter for: one that runs a model must earn its passes."""
        if not self._adaptive or not isinstance(drafter, ModelDrafter) or self._pass_cost is None:
            return limit
        return drafting_limit(
            drafter.acceptance, limit, sequences, self._step_seconds, self._pass_cost
        )

    def _without_special(self, proposal: Proposal) -> Proposal:
        """Drafts never run past the end of a text or a special token."""
        for place, token in enumerate(proposal.tokens):
            if token in self._special:
                return proposal.first(place)
        return proposal
