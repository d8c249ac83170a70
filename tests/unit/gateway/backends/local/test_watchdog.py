from __future__ import annotations

from engine import frames
from gateway.backends.local.process import Step
from gateway.backends.local.watchdog import TICKS_PER_ANSWER, Watchdog
from gateway.config import SupervisionConfig

LIMITS = SupervisionConfig(start_s=30.0, answer_s=10.0, step_s=60.0)
READY = frames.Ready("m", 128, 1000, "float32", ["ngram"], 10, 16, "ngram")
START_TICKS = 12
"""`start_s` in ticks of a quarter of `answer_s`."""


def ready() -> Watchdog:
    watchdog = Watchdog(LIMITS)
    watchdog.heard(READY)
    return watchdog


def test_watchdog_lets_an_engine_live_that_answers() -> None:
    watchdog = ready()
    for _ in range(1000):
        assert watchdog.tick() is None
        watchdog.heard(frames.Pong(0.1))


def test_watchdog_takes_an_engine_that_does_not_answer_for_hung() -> None:
    watchdog = ready()
    assert watchdog.tick_s == 2.5
    assert [watchdog.tick() for _ in range(TICKS_PER_ANSWER)] == [None] * TICKS_PER_ANSWER
    assert watchdog.tick() == "no answer for 10 s"


def test_watchdog_takes_any_frame_for_a_sign_of_life() -> None:
    watchdog = ready()
    for _ in range(100):
        assert watchdog.tick() is None
        watchdog.heard(Step([]))


def test_watchdog_lets_a_long_step_be_but_not_an_endless_one() -> None:
    watchdog = ready()
    for busy_s in (0.0, 30.0, 59.9):
        watchdog.heard(frames.Pong(busy_s))
        assert watchdog.tick() is None
    watchdog.heard(frames.Pong(60.1))
    assert watchdog.tick() == "one step has taken more than 60 s"


def test_watchdog_waits_longer_for_an_engine_that_loads_and_counts_from_its_last_progress() -> None:
    watchdog = Watchdog(LIMITS)
    for _ in range(START_TICKS):
        assert watchdog.tick() is None
    watchdog.heard(frames.Loading("reading weights", 0.5))
    for _ in range(START_TICKS):
        watchdog.heard(frames.Pong(0.0))
        assert watchdog.tick() is None
    assert watchdog.tick() == "no progress for 30 s while reading weights"
