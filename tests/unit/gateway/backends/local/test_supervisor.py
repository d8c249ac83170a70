from __future__ import annotations

from gateway.backends.local.supervisor import RestartBudget
from gateway.config import SupervisionConfig

LIMITS = SupervisionConfig(max_restarts=3, restart_window_s=60.0, restart_delay_s=0.5)


def test_budget_waits_twice_as_long_with_each_restart() -> None:
    budget = RestartBudget(LIMITS)
    assert [budget.take(now) for now in (0.0, 1.0, 2.0)] == [0.5, 1.0, 2.0]


def test_budget_refuses_when_the_window_is_full() -> None:
    budget = RestartBudget(LIMITS)
    for now in (0.0, 10.0, 20.0):
        budget.take(now)
    assert budget.take(30.0) is None
    assert budget.exhausted_for(30.0) == 30.0


def test_budget_forgets_restarts_that_left_the_window() -> None:
    budget = RestartBudget(LIMITS)
    for now in (0.0, 10.0, 20.0):
        budget.take(now)
    assert budget.exhausted_for(60.0) == 0.0
    assert budget.take(60.0) == 2.0
    assert budget.take(61.0) is None
    assert budget.take(1000.0) == 0.5


def test_budget_is_free_again_once_the_fault_is_known_and_gone() -> None:
    budget = RestartBudget(LIMITS)
    for now in (0.0, 10.0, 20.0):
        budget.take(now)
    budget.forgive()
    assert budget.take(30.0) == 0.5


def test_budget_of_none_waits_for_a_window_before_each_restart() -> None:
    budget = RestartBudget(SupervisionConfig(max_restarts=0, restart_window_s=60.0))
    assert budget.take(0.0) is None
    assert budget.exhausted_for(0.0) == 60.0
