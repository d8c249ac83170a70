from __future__ import annotations

import random

import pytest

from engine.scheduling.draft_length import StepCost
from engine.scheduling.running_cost import Pace, RunningCost, StepSeconds

PROFILE = [(1, 1.0), (2, 1.0), (4, 1.0), (8, 1.0), (16, 1.0)]


def test_cost_is_the_profile_until_something_is_measured() -> None:
    cost = RunningCost([(1, 1.0), (3, 3.0)])
    assert [cost(size) for size in (1, 2, 3)] == [1.0, 2.0, 3.0]


def test_pace_of_the_machine_counts_for_sizes_not_tried() -> None:
    cost = RunningCost(PROFILE)
    for _ in range(200):
        cost.observe(1, 2.0)
    assert cost(1) == pytest.approx(2.0, rel=0.05)
    assert cost(16) == pytest.approx(2.0, rel=0.25)


def test_cost_of_one_size_beside_another_is_learned_on_a_machine_of_changing_pace() -> None:
    dice = random.Random(2)
    cost = RunningCost(PROFILE)
    for step in range(4000):
        slow = 1.0 if step // 500 % 2 else 3.0
        size = dice.choice([1, 8])
        cost.observe(size, slow * (1.0 if size == 1 else 1.8))
    assert cost(8) / cost(1) == pytest.approx(1.8, rel=0.1)


def test_single_stall_is_hardly_believed() -> None:
    cost = RunningCost(PROFILE)
    cost.observe(8, 1000.0)
    assert cost(8) < 1.05


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_clock_that_stood_still_says_nothing(seconds: float) -> None:
    cost = RunningCost(PROFILE)
    cost.observe(1, seconds)
    assert cost(1) == 1.0


def test_follower_takes_the_pace_and_does_not_make_it() -> None:
    pace = Pace()
    leader, follower = RunningCost(PROFILE, pace), RunningCost(PROFILE, pace, leads=False)
    for _ in range(100):
        follower.observe(1, 9.0)
    assert pace.factor == 1.0
    for _ in range(200):
        leader.observe(1, 2.0)
    assert pace.factor > 1.5
    assert follower(16) > 1.5


def test_step_is_its_rows_and_what_is_done_around_them() -> None:
    step = StepSeconds(StepCost([(1, 0.01), (8, 0.01), (16, 0.02)]))
    for _ in range(1000):
        step.plan(8, 8)
        step.observe(sequences=8, rows=8, forward=0.01, judged=0.0048, around=0.0015)
    step.plan(8, 8)
    assert step(8) == pytest.approx(0.0163, rel=0.05)
    assert step(16) == pytest.approx(0.0311, rel=0.05)


def test_a_pause_is_part_of_a_step_and_no_surprise_to_what_is_measured() -> None:
    step = StepSeconds(StepCost([(1, 0.01), (8, 0.02)]))
    before = step(1), step(8)
    step.pause = 0.05
    for _ in range(1000):
        step.plan(1, 0)
        step.observe(sequences=1, rows=1, forward=0.01, judged=0.00005, around=0.0003)
    assert step(1) - before[0] == pytest.approx(0.05, abs=0.001)
    assert step(8) - before[1] == pytest.approx(0.05, abs=0.001)


def test_rows_without_noise_are_told_apart_from_those_with() -> None:
    step = StepSeconds(StepCost([(1, 0.01), (8, 0.01)]))
    for number in range(4000):
        noisy = 4 * (number % 2)
        step.plan(4, noisy)
        judged = 0.004 if noisy else 0.0004
        step.observe(sequences=4, rows=4, forward=0.01, judged=judged, around=0.001)
    step.plan(4, 0)
    plain = step(4)
    step.plan(4, 4)
    assert step(4) - plain == pytest.approx(0.0036, rel=0.1)
