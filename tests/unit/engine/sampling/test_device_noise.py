# pyright: reportUnknownMemberType=false
# torch declares some of its types in part only.
"""The tensor code's noise against numpy's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.sampling.device_noise import scores, words
from engine.sampling.noise import NoiseSource, philox_words

SEEDS = st.integers(0, 2**63 - 1)
POSITIONS = st.integers(0, 2**40)
ULP = 2.0**-50
"""A logarithm may be a last bit off another library's; values are below 64."""


@given(st.lists(st.tuples(SEEDS, POSITIONS), min_size=1, max_size=4), st.integers(1, 70))
def test_words_are_those_of_numpy(streams: list[tuple[int, int]], count: int) -> None:
    seeds, positions = (torch.tensor(column) for column in zip(*streams, strict=True))
    found = words(seeds, positions, count).numpy()
    for row, (seed, position) in enumerate(streams):
        assert np.array_equal(found[row], philox_words(seed, position, count))


@pytest.mark.parametrize("seed", [0, 2**63 - 1])
def test_scores_are_logits_plus_the_noise_of_the_sampler(seed: int) -> None:
    x = torch.randn(1, 5000, generator=torch.Generator().manual_seed(1))
    found = scores(x, torch.tensor([seed]), torch.tensor([9])).numpy()[0]
    assert found == pytest.approx(x.numpy()[0] + NoiseSource(seed, 5000).at(9), rel=0, abs=64 * ULP)
