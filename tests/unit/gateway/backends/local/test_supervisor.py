from __future__ import annotations

from gateway.backends.local.supervisor import RestartBudget, RestartPolicy

POLICY = RestartPolicy(max_restarts=3, window_s=60.0, first_delay_s=0.5)


def test_budget_waits_twice_as_long_with_each_restart() -> None:
    budget = RestartBudget(POLICY)
    assert [budget.take(now) for now in (0.0, 1.0, 2.0)] == [0.5, 1.0, 2.0]


def test_budget_refuses_when_the_window_is_full() -> None:
    budget = RestartBudget(POLICY)
    for now in (0.0, 10.0, 20.0):
        budget.take(now)
    assert budget.take(30.0) is None
    assert budget.exhausted_for(30.0) == 30.0


def test_budget_forgets_restarts_that_left_the_window() -> None:
    budget = RestartBudget(POLICY)
    for now in (0.0, 10.0, 20.0):
        budget.take(now)
    assert budget.exhausted_for(60.0) == 0.0
    assert budget.take(60.0) == 2.0
    assert budget.take(61.0) is None
    assert budget.take(1000.0) == 0.5
