from __future__ import annotations

import pytest

from gateway.telemetry.queue import MOST_LOOKS, WINDOW_S, QueueWatch


def test_queue_that_is_empty_means_no_wait() -> None:
    watch = QueueWatch(0.0)
    watch.look(10.0, waiting=0, ended=0)
    assert (watch.growth, watch.wait_s) == (0.0, 0.0)


def test_wait_is_not_known_before_a_stream_has_ended() -> None:
    watch = QueueWatch(0.0)
    watch.look(10.0, waiting=5, ended=0)
    assert watch.wait_s is None


def test_wait_is_the_queue_at_the_pace_of_the_window() -> None:
    watch = QueueWatch(0.0)
    watch.look(100.0, waiting=0, ended=1000)
    for step in range(1, 30):
        watch.look(100.0 + 10 * step, waiting=8, ended=1000 + 5 * step)
    assert watch.wait_s == pytest.approx(16.0)  # half a stream ends per second by now


def test_wait_goes_by_the_whole_time_where_nothing_ends_any_more() -> None:
    watch = QueueWatch(0.0)
    for at in (100.0, 100.0 + WINDOW_S, 100.0 + 2 * WINDOW_S):
        watch.look(at, waiting=4, ended=10)
    assert watch.wait_s == pytest.approx(4 * (100.0 + 2 * WINDOW_S) / 10)


def test_growth_forgets_what_left_the_window() -> None:
    watch = QueueWatch(0.0)
    for at, waiting in ((10.0, 100), (200.0, 100), (260.0, 40), (320.0, 40)):
        watch.look(at, waiting, 0)
    assert watch.growth == pytest.approx(-0.5)


def test_two_looks_at_once_divide_by_nothing() -> None:
    watch = QueueWatch(5.0)
    watch.look(5.0, waiting=1, ended=1)
    assert (watch.growth, watch.wait_s) == (0.0, None)


def test_watch_keeps_a_bounded_number_of_looks() -> None:
    watch = QueueWatch(0.0)
    for step in range(2 * MOST_LOOKS):
        watch.look(step * 0.001, waiting=step, ended=0)
    assert watch.growth == pytest.approx(1000.0)
