# pyright: reportUnknownMemberType=false
# torch declares some of its types in part only.
"""Sixteen floats at a time: what each operation means, and that all instruction sets agree."""

from __future__ import annotations

import math
from ctypes import c_float

import numpy as np
import pytest
import torch

from tests.unit.engine.kernels.probes import ISAS, probe

ALL_HALVES = np.arange(1 << 16, dtype=np.uint16)
SPECIAL = np.array(
    [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 3.4e38, -3.4e38], np.float32
)


def floats(seed: int, count: int = 1 << 16) -> np.ndarray:
    """Every kind of float32: random bits, so NaN and infinity too."""
    bits = np.random.default_rng(seed).integers(0, 1 << 32, count, dtype=np.uint32)
    return bits.view(np.float32)


def same(left: np.ndarray, right: np.ndarray) -> bool:
    """Bit for bit, but one NaN is as good as another."""
    both_nan = np.isnan(left) & np.isnan(right)
    words = f"u{left.dtype.itemsize}"
    return bool((both_nan | (left.view(words) == right.view(words))).all())


@pytest.mark.parametrize("isa", ISAS)
def test_exp_is_within_two_units_in_the_last_place(isa: str) -> None:
    x = np.linspace(-87, 88, 1 << 18, dtype=np.float32)
    y = np.empty_like(x)
    probe(isa).call("exp", x, y, len(x))
    exact = np.exp(x.astype(np.float64))
    assert (np.abs(y - exact) / np.spacing(exact.astype(np.float32))).max() < 2


@pytest.mark.parametrize("isa", ISAS)
def test_exp_has_ends_and_keeps_what_is_no_number(isa: str) -> None:
    x = np.array([0, -1e9, -np.inf, 1e9, np.inf, np.nan, -np.nan, -87, 88] + [0] * 7, np.float32)
    y = np.empty_like(x)
    probe(isa).call("exp", x, y, len(x))
    assert y[0] == 1
    assert y[1] == y[2] == y[7] > 0
    assert y[3] == y[4] == y[8] < np.inf
    assert np.isnan(y[5]) and np.isnan(y[6])


@pytest.mark.parametrize("isa", ISAS)
def test_log_is_within_two_units_in_the_last_place(isa: str) -> None:
    random = np.random.default_rng(1)
    x = np.concatenate([np.exp(random.uniform(-30, 30, 100_000)), 1 - 2.0 ** -np.arange(2, 34)])
    y = np.empty_like(x)
    probe(isa).call("log", x, y, len(x))
    exact = np.array([math.log(value) for value in x])
    # The C library's own is right to about half a unit.
    assert (np.abs(y - exact) / np.spacing(np.abs(exact))).max() <= 2


@pytest.mark.parametrize("isa", ISAS)
def test_halves_and_bfloat16_are_read_exactly(isa: str) -> None:
    y = np.empty(1 << 16, np.float32)
    probe(isa).call("halves", ALL_HALVES, y, len(y))
    assert same(y, ALL_HALVES.view(np.float16).astype(np.float32))
    probe(isa).call("widen", ALL_HALVES, y, len(y))
    assert same(y, (ALL_HALVES.astype(np.uint32) << 16).view(np.float32))


def test_bfloat16_is_rounded_to_nearest_even() -> None:
    ties = (ALL_HALVES.astype(np.uint32) << 16 | 0x8000).view(np.float32)
    x = np.concatenate([floats(2), ties, SPECIAL])
    y = np.empty(len(x), np.uint16)
    probe().call("narrow", x, y, len(x))
    wide = (y.astype(np.uint32) << 16).view(np.float32)
    assert same(wide, torch.from_numpy(x).to(torch.bfloat16).float().numpy())


@pytest.mark.parametrize("isa", ISAS)
def test_rounding_takes_ties_to_even(isa: str) -> None:
    random = np.random.default_rng(3).uniform(-(2**22), 2**22, 1 << 16)
    x = np.concatenate([np.arange(-512, 512) / 2, random]).astype(np.float32)
    y = np.empty_like(x)
    probe(isa).call("round", x, y, len(x))
    assert np.array_equal(y, np.rint(x))


@pytest.mark.parametrize("isa", ISAS)
def test_largest_and_least_give_the_second_where_either_is_no_number(isa: str) -> None:
    x, y = np.tile(SPECIAL, 16), np.repeat(SPECIAL, 16)
    largest, least = np.empty_like(x), np.empty_like(x)
    probe(isa).call("largest", x, y, largest, least, len(x))
    with np.errstate(invalid="ignore"):
        assert same(largest, np.where(x > y, x, y))
        assert same(least, np.where(x < y, x, y))


@pytest.mark.parametrize("isa", ISAS)
def test_sum_of_lanes_adds_halves(isa: str) -> None:
    x = np.random.default_rng(4).standard_t(2, (4096, 16)).astype(np.float32)
    y = np.empty(len(x), np.float32)
    probe(isa).call("sums", x, y, len(x))
    tree = x
    while tree.shape[1] > 1:
        half = tree.shape[1] // 2
        tree = tree[:, :half] + tree[:, half:]
    assert np.array_equal(y, tree[:, 0])


@pytest.mark.parametrize("isa", ISAS)
def test_lanes_behind_the_first_become_another_value(isa: str) -> None:
    x = np.arange(16, dtype=np.float32)
    for count in range(1, 20):
        y = np.empty_like(x)
        probe(isa).call("first", x, count, c_float(-7.0), y)
        assert np.array_equal(y, np.where(x < count, x, -7))


@pytest.mark.parametrize("isa", ISAS[1:])
def test_instruction_sets_give_the_same_exponentials_and_logarithms(isa: str) -> None:
    x = floats(5, 1 << 18)
    ours, theirs = np.empty_like(x), np.empty_like(x)
    probe().call("exp", x, ours, len(x))
    probe(isa).call("exp", x, theirs, len(x))
    assert same(ours, theirs)
    positive = np.random.default_rng(6).uniform(1e-10, 50, 1 << 16)
    a, b = np.empty_like(positive), np.empty_like(positive)
    probe().call("log", positive, a, len(a))
    probe(isa).call("log", positive, b, len(b))
    assert same(a, b)
