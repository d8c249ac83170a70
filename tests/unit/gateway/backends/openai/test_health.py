from __future__ import annotations

import pytest

from gateway.backends.openai.errors import UpstreamError
from gateway.backends.openai.health import Condition, Health
from gateway.config.upstreams import UpstreamConfig
from protocol.errors import ErrorCode

BROKEN = UpstreamError("it broke")
REFUSED = UpstreamError("nothing listens", refused_connection=True)
BUSY = UpstreamError("slow down", ErrorCode.RATE_LIMITED, retry_after_s=7.0)


@pytest.fixture
def health() -> Health:
    config = UpstreamConfig(url="http://a", failures_until_down=2, rest_s=1.0, longest_rest_s=3.0)
    return Health(config)


def test_server_goes_down_after_failures_in_a_row(health: Health) -> None:
    health.fail(0.0, BROKEN)
    assert health.condition(0.0) is Condition.UP
    health.answers()  # and breaks off again: that is no success
    health.fail(0.0, BROKEN)
    assert health.condition(0.0) is Condition.DOWN
    assert health.last_failure == "it broke"


def test_whole_answer_makes_failures_forgotten(health: Health) -> None:
    health.fail(0.0, BROKEN)
    health.succeed()
    health.fail(0.0, BROKEN)
    assert health.condition(0.0) is Condition.UP


def test_refused_connection_is_enough(health: Health) -> None:
    health.fail(0.0, REFUSED)
    assert health.condition(0.0) is Condition.DOWN
    assert not health.may_try(0.5)
    assert health.wait_s(0.25) == 0.75


def test_one_request_probes_a_server_whose_rest_is_over(health: Health) -> None:
    health.fail(0.0, REFUSED)
    assert health.may_try(1.0)
    assert health.begin()
    assert health.condition(1.0) is Condition.PROBED
    assert not health.may_try(1.0)
    health.answers()
    assert health.condition(1.0) is Condition.UP
    assert health.may_try(1.0)


def test_rests_grow_while_probes_fail_and_begin_anew_after_success(health: Health) -> None:
    now = 0.0
    rests: list[float] = []
    health.fail(now, REFUSED)
    for _ in range(4):
        rests.append(health.wait_s(now))
        now += health.wait_s(now)
        health.begin()
        health.fail(now, BROKEN)
    assert rests == [1.0, 2.0, 3.0, 3.0]
    health.begin()
    health.succeed()
    health.fail(now, REFUSED)
    assert health.wait_s(now) == 1.0


def test_probe_that_is_given_up_leaves_the_next_one_free(health: Health) -> None:
    health.fail(0.0, REFUSED)
    health.begin()
    health.give_up_probe()
    assert health.condition(1.0) is Condition.DOWN
    assert health.may_try(1.0)


def test_requests_under_way_do_not_lengthen_the_rest(health: Health) -> None:
    health.fail(0.0, REFUSED)
    health.fail(0.5, BROKEN)
    assert health.wait_s(0.5) == 0.5


def test_busy_server_is_left_alone_for_as_long_as_it_says_and_is_not_down(health: Health) -> None:
    health.fail(0.0, BUSY)
    assert health.condition(1.0) is Condition.RESTING
    assert not health.may_try(6.9)
    assert health.condition(7.0) is Condition.UP
