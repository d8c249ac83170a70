from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.drafters.base import Proposal
from engine.scheduling.draft_length import (
    PlanOutcome,
    StepCost,
    drafting_limit,
    planned,
    worthwhile,
)

FLAT = StepCost([(1, 1.0), (64, 1.0)])
STEEP = StepCost([(1, 1.0), (64, 64.0)])


def proposal(*confidence: float) -> Proposal:
    return Proposal([0] * len(confidence), list(confidence))


def test_step_cost_lies_on_lines_between_measured_points() -> None:
    cost = StepCost([(1, 1.0), (3, 2.0), (5, 6.0)])
    assert [cost(rows) for rows in (1, 2, 3, 4, 5, 10)] == [1.0, 1.5, 2.0, 4.0, 6.0, 12.0]


def test_step_cost_never_falls() -> None:
    cost = StepCost([(1, 2.0), (2, 1.0), (4, 3.0)])
    assert [cost(rows) for rows in (1, 2, 4)] == [2.0, 2.0, 3.0]


def test_everything_is_verified_where_rows_are_free() -> None:
    assert worthwhile([proposal(0.5, 0.1), proposal(0.01)], 2, FLAT) == [2, 1]


def test_nothing_is_drafted_where_rows_cost_more_than_they_are_worth() -> None:
    assert worthwhile([proposal(0.5, 0.4), proposal(0.9)], 2, STEEP) == [0, 0]


def test_the_likelier_rows_are_taken_first() -> None:
    cost = StepCost([(2, 1.0), (4, 1.05), (5, 3.0)])
    assert worthwhile([proposal(0.2, 0.1), proposal(0.9, 0.8)], 2, cost) == [0, 2]


@given(
    st.lists(
        st.lists(st.floats(0.0, 1.0), max_size=6).map(lambda c: sorted(c, reverse=True)),
        min_size=1,
        max_size=5,
    ),
    st.lists(st.floats(0.1, 10.0), min_size=7, max_size=7),
)
def test_choice_is_the_best_of_all_numbers_of_rows(
    confidences: list[list[float]], seconds: list[float]
) -> None:
    cost = StepCost(list(zip((1, 2, 4, 8, 16, 32, 64), seconds, strict=True)))
    proposals = [proposal(*c) for c in confidences]
    rows = len(proposals)
    kept = worthwhile(proposals, rows, cost)
    chosen = rows + sum(sum(c[:k]) for c, k in zip(confidences, kept, strict=True))
    rate = chosen / cost(rows + sum(kept))
    everything = sorted((c for cs in confidences for c in cs), reverse=True)
    for count in range(len(everything) + 1):
        assert rate >= (rows + sum(everything[:count])) / cost(rows + count) * (1 - 1e-9)


@pytest.mark.parametrize(
    ("acceptance", "draft_seconds", "expected"), [(0.9, 0.0, 8), (0.9, 10.0, 0), (0.0, 0.1, 0)]
)
def test_model_drafts_as_far_as_its_passes_pay(
    acceptance: float, draft_seconds: float, expected: int
) -> None:
    draft = StepCost([(1, draft_seconds)])
    assert drafting_limit(acceptance, 8, 1, FLAT, draft) == expected


@pytest.mark.parametrize(("chance", "draft_seconds"), [(0.9, 10.0), (0.0, 0.1)])
def test_nobody_drafts_where_it_does_not_pay(chance: float, draft_seconds: float) -> None:
    plan = planned([chance] * 3, 8, 3, FLAT, StepCost([(1, draft_seconds)]), PlanOutcome())
    assert plan.asked == []


def test_everybody_drafts_where_drafts_are_free() -> None:
    plan = planned([0.5, 0.2], 8, 2, FLAT, StepCost([(1, 0.0)]), PlanOutcome())
    assert sorted(plan.asked) == [0, 1]
    assert plan.floor == 0.0


def test_only_the_sure_ones_draft_where_rows_are_dear() -> None:
    cost = StepCost([(4, 4.0), (64, 34.0)])
    plan = planned([0.1, 0.95, 0.2, 0.1], 2, 4, cost, StepCost([(1, 0.01)]), PlanOutcome())
    assert plan.asked == [1]


def test_dearer_drafts_must_be_surer() -> None:
    floors = [
        planned([0.7], 8, 1, FLAT, StepCost([(1, seconds)]), PlanOutcome()).floor
        for seconds in (0.01, 0.05, 0.1)
    ]
    assert 0.0 < floors[0] < floors[1] < floors[2] < 1.0


def test_plans_that_brought_less_than_they_promised_are_believed_less() -> None:
    """The chances are those of the surest drafts, which are all that is verified."""
    cost, draft = StepCost([(1, 1.0), (64, 16.0)]), StepCost([(1, 0.02)])
    chances = [0.85] * 8
    outcome = PlanOutcome()
    promised = planned(chances, 4, 8, cost, draft, outcome)
    assert promised.asked
    for _ in range(50):
        outcome.observe(promised, promised.gain, promised.seconds)
    assert planned(chances, 4, 8, cost, draft, outcome) == promised
    for _ in range(200):
        outcome.observe(promised, 0.4 * promised.gain, promised.seconds)
    assert outcome.gain == pytest.approx(0.4, abs=0.02)
    assert planned(chances, 4, 8, cost, draft, outcome).asked == []
    for _ in range(200):
        outcome.observe(promised, 0.4 * promised.gain, 0.3 * promised.seconds)
    assert outcome.seconds == pytest.approx(0.3, abs=0.02)
    assert planned(chances, 4, 8, cost, draft, outcome).asked
