from __future__ import annotations

import pytest

from gateway.access.quotas import All, Bucket, Quota, TokenClaim, take_all
from protocol.errors import ErrorCode, RequestError
from tests.unit.gateway.doubles import FakeClock


def waits(bucket: Bucket, units: int = 1) -> float | None:
    """How long a taker is told to wait; None: it got what it asked for."""
    try:
        bucket.take(units)
    except RequestError as refused:
        assert refused.code == "rate_limited"
        return refused.retry_after_s
    return None


def is_full(bucket: Bucket) -> bool:
    """Whether a whole minute's worth is there; leaves it there."""
    assert bucket.most is not None
    if waits(bucket, bucket.most) is not None:
        return False
    bucket.give(bucket.most)
    return True


def test_bucket_gives_a_minutes_worth_at_once_and_then_as_much_as_flows_in() -> None:
    clock = FakeClock()
    bucket = Bucket(6, "{most} per minute", clock.now)
    assert [waits(bucket) for _ in range(7)] == [None] * 6 + [10.0]
    clock.advance(4.0)
    assert waits(bucket) == pytest.approx(6.0)
    clock.advance(6.0)
    assert waits(bucket) is None
    assert not is_full(bucket)
    clock.advance(60.0)
    assert is_full(bucket)
    assert [waits(bucket) for _ in range(7)] == [None] * 6 + [10.0]


def test_bucket_of_another_period_saves_up_no_more_than_that() -> None:
    clock = FakeClock()
    bucket = Bucket(10, "", clock.now, period_s=5.0)
    clock.advance(60.0)
    assert [waits(bucket) for _ in range(11)] == [None] * 10 + [0.5]
    clock.advance(0.5)
    assert [waits(bucket) for _ in range(2)] == [None, 0.5]


def test_bucket_says_its_rate() -> None:
    bucket = Bucket(1, "{most} per minute", FakeClock().now)
    bucket.take()
    with pytest.raises(RequestError, match="1 per minute"):
        bucket.take()


def test_whoever_waits_as_long_as_told_is_served() -> None:
    clock = FakeClock()
    bucket = Bucket(7, "", clock.now)
    bucket.take(7)
    for _ in range(100):
        delay = waits(bucket, 3)
        assert delay is not None
        clock.advance(delay)
        assert waits(bucket, 3) is None


def test_bucket_in_debt_lets_nobody_in_until_it_is_paid() -> None:
    clock = FakeClock()
    bucket = Bucket(60, "", clock.now)
    bucket.give(-100)
    assert waits(bucket) == pytest.approx(41.0)
    bucket.give(40)
    assert waits(bucket) == pytest.approx(1.0)


def test_change_of_the_rate_forgives_nothing() -> None:
    clock = FakeClock()
    bucket = Bucket(60, "", clock.now)
    bucket.take(60)
    bucket.change(120)
    assert waits(bucket, 60) is None
    assert waits(bucket, 1) == pytest.approx(0.5)
    bucket.change(None)
    assert waits(bucket, 10_000) is None


def test_stream_is_charged_for_what_it_used() -> None:
    bucket = Bucket(100, "", FakeClock().now)
    claim = TokenClaim(bucket, 80)
    claim.take()
    assert waits(bucket, 30) is not None
    claim.give(10)
    assert waits(bucket, 90) is None
    assert waits(bucket) is not None


def test_stream_is_charged_for_a_prompt_that_was_longer_than_its_answer_might_be() -> None:
    bucket = Bucket(100, "", FakeClock().now)
    claim = TokenClaim(bucket, 10)
    claim.take()
    claim.give(150)
    assert waits(bucket) == pytest.approx(51 * 0.6)


def test_stream_that_cannot_say_what_it_used_is_charged_for_all_it_might_have() -> None:
    bucket = Bucket(100, "", FakeClock().now)
    claim = TokenClaim(bucket, 80)
    claim.take()
    claim.give()
    assert waits(bucket, 21) is not None
    assert waits(bucket, 20) is None


def test_claims_are_taken_all_or_none() -> None:
    bucket = Bucket(100, "", FakeClock().now)
    free, full = (
        Quota(2, ErrorCode.OVERLOADED, "free"),
        Quota(0, ErrorCode.OVERLOADED, "{most} is full"),
    )
    tokens = TokenClaim(bucket, 100)
    for claims in ((tokens, free, full), (All(tokens, free), full)):
        with pytest.raises(RequestError, match="0 is full"):
            take_all(claims)
        assert free.taken == 0
        assert is_full(bucket)
    both = All(tokens, free)
    both.take()
    assert (free.taken, is_full(bucket)) == (1, False)
    both.give(0)
    assert (free.taken, is_full(bucket)) == (0, True)
