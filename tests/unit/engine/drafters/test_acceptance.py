from __future__ import annotations

import random

import pytest

from engine.drafters.acceptance import FADE, Acceptance, Calibration, level_of
from engine.kernels.library import CHANCE_LEVELS, CHANCE_PLACES

EVEN = [0.5] * CHANCE_LEVELS


def test_acceptance_counts_no_token_behind_a_wrong_one() -> None:
    acceptance = Acceptance(0.5)
    for _ in range(200):
        acceptance.observe(8, 1)
    assert acceptance.chance == pytest.approx(0.5, abs=0.01)


def test_acceptance_forgets() -> None:
    acceptance = Acceptance(0.5)
    for hit in (1, 0):
        for _ in range(int(4 * FADE)):
            acceptance.observe(1, hit)
    assert acceptance.chance < 0.1


def test_calibration_begins_with_what_is_assumed() -> None:
    calibration = Calibration([n / CHANCE_LEVELS for n in range(CHANCE_LEVELS)])
    assert calibration.table.shape == (CHANCE_PLACES, CHANCE_LEVELS)
    for place in (0, 7):
        assert calibration.table[place].tolist() == [n / CHANCE_LEVELS for n in range(16)]


def test_calibration_finds_the_chance_of_each_level() -> None:
    calibration, dice = Calibration(EVEN), random.Random(1)
    for _ in range(6000):
        probability = dice.random()
        calibration.observe([probability], 1, int(dice.random() < probability**2))
    for level in range(CHANCE_LEVELS):
        middle = (level + 0.5) / CHANCE_LEVELS
        assert calibration.table[0, level] == pytest.approx(middle**2, abs=0.1)


def test_calibration_tells_places_apart_where_they_differ() -> None:
    calibration = Calibration(EVEN)
    for _ in range(300):
        calibration.observe([0.9, 0.9], 2, 1)
    level = level_of(0.9)
    assert calibration.table[0, level] > 0.9
    assert calibration.table[1, level] < 0.1
    assert calibration.table[5, level] == pytest.approx(0.5, abs=0.05), "as the level everywhere"


def test_levels_cover_all_probabilities() -> None:
    assert [level_of(p) for p in (0.0, 0.0624, 0.0626, 0.999, 1.0)] == [0, 0, 1, 15, 15]
