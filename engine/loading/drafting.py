"""The drafters that a configuration asks for, built over the runners of their models."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from engine.drafters.combined import CombinedDrafter
from engine.drafters.eagle import EagleDrafter
from engine.drafters.model import ModelDrafter
from engine.drafters.ngram import NgramDrafter
from engine.drafters.suffix import SuffixDrafter
from engine.drafting import OFF, Drafting
from engine.errors import EngineConfigError
from engine.scheduling.running_cost import RunningCost, StepSeconds

if TYPE_CHECKING:
    from engine.config import EngineConfig
    from engine.drafters.base import Drafter
    from engine.drafters.suffix import Shelves
    from engine.model.draft_head import HeadRunner
    from engine.model.runner import StepRunner
    from engine.sampling.grammars import Grammars
    from engine.sampling.sampler import Sampler
    from engine.scheduling.draft_length import StepCost
    from engine.scheduling.sequence import Sequence


class Live(NamedTuple):
    """The engine's streams; drafters read them and change nothing."""

    sequences: dict[str, Sequence]
    samplers: dict[str, Sampler]
    grammars: Grammars


def build_drafting(
    config: EngineConfig,
    live: Live,
    shelves: Shelves,
    *,
    special: frozenset[int],
    num_blocks: int,
    verify_cost: StepCost,
    head: HeadRunner | None,
    draft: StepRunner | None,
) -> Drafting:
    """`shelves`: what the copying drafters remember. `special`: never drafted. `head`, `draft`: a
    draft head and a draft model, where there are any; measured here.

    Raises EngineConfigError where the drafter asked for needs one that there is not.
    """
    step_seconds = StepSeconds(verify_cost)
    drafters: dict[str, Drafter] = {"ngram": NgramDrafter(), "suffix": SuffixDrafter(shelves)}
    if head is not None:
        head_cost = None
        if config.adaptive_draft:
            points = head.profile(num_blocks).points
            head_cost = RunningCost(points, step_seconds.pace, leads=False)
        eagle = EagleDrafter(
            head, live.sequences, live.samplers, step=step_seconds, draft=head_cost
        )
        drafters["head"] = eagle
        drafters["combined"] = CombinedDrafter(eagle, NgramDrafter(), SuffixDrafter(shelves))
    pass_cost = None
    if draft is not None:
        pass_cost = draft.profile(num_blocks)
        drafters["model"] = ModelDrafter(
            draft,
            live.sequences,
            live.samplers,
            special_tokens=special,
            max_rows=config.max_step_tokens,
        )
    return Drafting(
        drafters,
        live.samplers,
        live.grammars,
        default=_default(config, drafters),
        special=special,
        step_seconds=step_seconds,
        pass_cost=pass_cost,
        adaptive=config.adaptive_draft,
    )


def _default(config: EngineConfig, drafters: dict[str, Drafter]) -> str:
    """Raises EngineConfigError where the one asked for is not loaded."""
    asked = config.drafter
    if asked is None:
        return next(name for name in ("model", "combined", "ngram") if name in drafters)
    if asked != OFF and asked not in drafters:
        needs = {"model": "draft_model"}.get(asked, "draft_head")
        raise EngineConfigError(f"drafter {asked!r} needs a {needs}", needs)
    return asked
