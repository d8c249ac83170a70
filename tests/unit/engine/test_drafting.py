"""What of the drafters' proposals reaches a step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from engine.drafters.base import Proposal
from engine.drafting import Drafting
from engine.errors import EngineRequestError
from engine.sampling.grammars import Grammars
from engine.sampling.params import SamplingParams
from engine.sampling.sampler import Sampler
from engine.scheduling.draft_length import StepCost
from engine.scheduling.running_cost import StepSeconds
from engine.scheduling.scheduler import Scheduled
from engine.scheduling.sequence import Sequence
from tests import models
from tests.generation import engine_on, generate, request

if TYPE_CHECKING:
    from collections.abc import Sequence as SequenceOf
    from pathlib import Path

    from engine.drafters.base import SequenceView

END = 1
FREE = [(1, 0.01), (64, 0.01)]
"""Every row after the first costs nothing."""
DEAR = [(1, 0.01), (64, 0.64)]


class Parrot:
    """Proposes what it was made with, and writes down what it is told."""

    def __init__(self, name: str, tokens: list[int], confidence: float) -> None:
        self.name = name
        self._proposal = Proposal(tokens, [confidence ** (n + 1) for n in range(len(tokens))])
        self.told: list[tuple[Any, ...]] = []

    def begin(self, stream: str, prompt: SequenceOf[int], prediction: SequenceOf[int]) -> None:
        self.told.append(("begin", stream, list(prompt), list(prediction)))

    def propose(self, items: SequenceOf[tuple[SequenceView, int]]) -> list[Proposal]:
        self.told.append(("propose", [(view.stream, limit) for view, limit in items]))
        return [self._proposal.first(limit) for _, limit in items]

    def observe(self, stream: str, drafted: int, accepted: int) -> None:
        self.told.append(("observe", stream, drafted, accepted))

    def end(self, stream: str) -> None:
        self.told.append(("end", stream))


class Setup:
    def __init__(self, *drafters: Parrot, cost: list[tuple[int, float]], adaptive: bool) -> None:
        self.samplers: dict[str, Sampler] = {}
        self.step_seconds = StepSeconds(StepCost(cost))
        self.drafting = Drafting(
            {drafter.name: drafter for drafter in drafters},
            self.samplers,
            Grammars(),
            default=drafters[0].name,
            special=frozenset([END]),
            step_seconds=self.step_seconds,
            pass_cost=None,
            adaptive=adaptive,
        )

    def scheduled(self, stream: str, drafter: str, limit: int = 8) -> Scheduled:
        sampling = SamplingParams(temperature=0.0)
        sequence = Sequence(
            stream,
            [3, 4],
            [],
            sampling,
            seed=1,
            priority=0,
            arrival=1,
            max_draft=limit,
            drafter=drafter,
        )
        sequence.computed = 1
        self.samplers[stream] = Sampler(sampling, 1, 10)
        return Scheduled(sequence, 1, limit)


def test_each_sequence_is_drafted_for_by_its_own_drafter() -> None:
    one, other = Parrot("one", [5, 6], 0.9), Parrot("other", [7], 0.9)
    setup = Setup(one, other, cost=FREE, adaptive=True)
    plan = [
        setup.scheduled("a", "other"),
        setup.scheduled("b", "one"),
        setup.scheduled("c", "one", limit=1),
        setup.scheduled("d", "one", limit=0),
    ]
    proposals = setup.drafting.propose(plan)
    assert [p.tokens for p in proposals] == [[7], [5, 6], [5], []]
    assert one.told == [("propose", [("b", 8), ("c", 1)])]
    assert other.told == [("propose", [("a", 8)])]


def test_draft_ends_before_a_special_token() -> None:
    setup = Setup(Parrot("one", [5, END, 6], 0.9), cost=FREE, adaptive=False)
    (proposal,) = setup.drafting.propose([setup.scheduled("a", "one")])
    assert proposal == Proposal([5], [0.9])


@pytest.mark.parametrize(
    ("cost", "adaptive", "kept"), [(FREE, True, 3), (DEAR, True, 0), (DEAR, False, 3)]
)
def test_draft_is_as_long_as_is_worth_verifying(
    cost: list[tuple[int, float]], adaptive: bool, kept: int
) -> None:
    setup = Setup(Parrot("one", [5, 6, 7], 0.5), cost=cost, adaptive=adaptive)
    (proposal,) = setup.drafting.propose([setup.scheduled("a", "one")])
    assert len(proposal.tokens) == len(proposal.confidence) == kept


def test_drafter_hears_of_its_own_streams_only() -> None:
    one, other = Parrot("one", [5], 0.9), Parrot("other", [7], 0.9)
    setup = Setup(one, other, cost=FREE, adaptive=True)
    sequence = setup.scheduled("a", "one").sequence
    setup.drafting.begin(sequence, [8, 9])
    setup.drafting.observe(sequence, Proposal([], []), 0)
    setup.drafting.observe(sequence, Proposal([5], [1.0], forced=True), 1)
    setup.drafting.observe(sequence, Proposal([5, 6, 7], [0.9, 0.8, 0.7]), 2)
    setup.drafting.end(sequence)
    assert one.told == [("begin", "a", [3, 4], [8, 9]), ("observe", "a", 3, 2), ("end", "a")]
    assert not other.told
    off = setup.scheduled("b", "none", limit=0).sequence
    setup.drafting.begin(off, [])
    setup.drafting.end(off)
    assert len(one.told) == 3 and not other.told


def test_prefill_says_nothing_about_what_a_drafting_step_costs() -> None:
    setup = Setup(Parrot("one", [5], 0.9), cost=FREE, adaptive=True)
    decoding = setup.scheduled("a", "one")
    prefill = Scheduled(setup.scheduled("b", "one").sequence, 2, 0)
    plan = [decoding, prefill]
    setup.drafting.propose(plan)
    before = setup.step_seconds(4)
    setup.drafting.took(plan, 4, forward=0.5, judged=0.1, around=0.1)
    assert setup.step_seconds(4) == before
    setup.drafting.propose([decoding])
    setup.drafting.took([decoding], 4, forward=0.5, judged=0.1, around=0.1)
    assert setup.step_seconds(4) > before


def test_request_gets_the_drafter_it_asks_for_or_the_default() -> None:
    drafting = Setup(Parrot("one", [5], 0.9), cost=FREE, adaptive=True).drafting
    assert [drafting.chosen(asked) for asked in (None, "one", "none")] == ["one", "one", "none"]
    with pytest.raises(EngineRequestError, match="'other' is not loaded; loaded: one") as caught:
        drafting.chosen("other")
    assert caught.value.param == "draft.drafter"


def test_adaptive_engine_stops_drafting_what_is_never_right(tiny: Path, tmp_path: Path) -> None:
    """A draft model that knows nothing: verification must not pay for it for ever."""
    stranger = models.write(tmp_path / "stranger", seed=99)
    usual: dict[str, Any] = {"max_tokens": 200, "ignore_eos": True, "temperature": 0.7, "seed": 5}
    drafted: dict[bool, int] = {}
    for adaptive in (True, False):
        engine = engine_on(tiny, draft_model=str(stranger), adaptive_draft=adaptive)
        start = request("s", "The ink is wet, the ink is dry; the ink is", **usual)
        drafted[adaptive] = generate(engine, start)["s"].counts.drafted
    assert drafted[True] < drafted[False] / 2
