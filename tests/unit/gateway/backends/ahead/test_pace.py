from gateway.backends.ahead.calibration import CLAIMS, Calibration
from gateway.backends.ahead.pace import Pace, Worth


def worth(upstream_s: float, drafter_s: float) -> Worth:
    drafter = Pace()
    drafter.observe(100, 100 * drafter_s)
    made = Worth(drafter)
    made.upstream.observe(100, 100 * upstream_s)
    return made


def test_drafts_pay_along_a_slow_upstream_and_not_along_a_fast_one():
    assert worth(0.016, 0.001).along
    assert not worth(0.001, 0.0001).along


def test_drafts_do_not_pay_when_the_drafter_is_no_faster():
    assert not worth(0.016, 0.016).along


def test_drafts_are_tried_as_long_as_nothing_is_known():
    fresh = Worth(Pace())
    assert fresh.along
    assert fresh.before_first


def test_drafts_pay_before_the_first_word_when_that_takes_long_whatever_comes_then():
    made = worth(0.001, 0.0001)
    made.observe_first(1.5)
    assert made.before_first
    for _ in range(20):
        made.observe_first(0.02)
    assert not made.before_first


def test_calibration_begins_with_what_was_measured_and_rises_with_the_claim():
    for greedy in (True, False):
        chances = [Calibration(greedy=greedy).chance(claim) for claim in (0.0, *CLAIMS)]
        assert chances == sorted(chances)
        assert 0.2 < chances[0] < chances[-1] < 1.0


def test_calibration_moves_to_what_is_seen_and_follows_a_change():
    calibration = Calibration(greedy=True)
    for _ in range(2000):
        calibration.observe(0.99, stayed=False)
    assert calibration.chance(0.99) < 0.1
    assert calibration.chance(0.1) == Calibration(greedy=True).chance(0.1)
    for _ in range(2000):
        calibration.observe(0.99, stayed=True)
    assert calibration.chance(0.99) > 0.9
