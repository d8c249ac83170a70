"""When a step counts as slow, and what is said about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engine.step_clock import QUIET_S, SLOW_FLOOR_S, StepClock

if TYPE_CHECKING:
    from collections.abc import Callable

FORWARD = {"products": 0.2, "stalled": 0.15}


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def step(time: Time) -> Callable[[float], None]:
    """Makes a step of 3 rows that takes so many seconds; 20 ms are expected."""
    clock = StepClock(lambda rows: 0.02 * rows / 3, now=time)

    def make(seconds: float) -> None:
        clock.begin()
        for part, share in (("draft", 0.25), ("forward", 0.5), ("draft", 0.25)):
            time.now += share * seconds
            clock.mark(part)
        clock.end(3, lambda: FORWARD)

    return make


def test_clock_says_nothing_about_a_step_that_takes_as_long_as_expected(
    step: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    step(0.079)
    assert not caplog.records


def test_clock_tells_where_the_time_of_a_slow_step_went(
    step: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    step(0.4)
    said = "a step of 3 rows took 400 ms instead of about 20: draft 200, forward 200;"
    assert caplog.messages == [said + " forward: products 200, stalled 150"]


def test_clock_counts_slow_steps_it_does_not_speak_of(
    step: Callable[[float], None], time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(5):
        step(0.4)
    assert len(caplog.records) == 1
    time.now += QUIET_S
    step(0.4)
    assert "(5 slow steps since the last line)" in caplog.messages[1]


def test_clock_minds_no_step_that_nobody_notices(
    time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    clock = StepClock(lambda rows: 0.001, now=time)
    clock.begin()
    time.now += 0.9 * SLOW_FLOOR_S
    clock.mark("forward")
    clock.end(1, dict)
    assert not caplog.records
