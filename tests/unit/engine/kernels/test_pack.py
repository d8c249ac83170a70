"""Tiles of sixteen outputs, as linear.h describes them."""

from __future__ import annotations

import numpy as np
import pytest

from engine.kernels.pack import interleaved, padded, tiles_of
from engine.loading.weights import BLOCK, BlockWeight, Kind, quantised_int4, quantised_int8

OUT, WIDTH = 37, 96
VALUES = np.random.default_rng(0).standard_normal((OUT, WIDTH)).astype(np.float32)
TILES = 3


@pytest.mark.parametrize("kind", [Kind.FLOAT32, Kind.BFLOAT16])
def test_floats_lie_input_by_input(kind: Kind) -> None:
    values = VALUES if kind is Kind.FLOAT32 else (VALUES.view(np.uint32) >> 16).astype(np.uint16)
    tiles = tiles_of(BlockWeight(kind, values))
    assert tiles.shape == (TILES, WIDTH, 16) and tiles.dtype == values.dtype
    for out in range(TILES * 16):
        column = tiles[out // 16, :, out % 16]
        assert np.array_equal(column, values[out] if out < OUT else np.zeros(WIDTH))


def test_int8_lies_in_groups_of_four_inputs() -> None:
    weight = quantised_int8(VALUES)
    assert weight.scales is not None
    tiles = tiles_of(weight).reshape(TILES, WIDTH // BLOCK, 512 + 32)
    for out in range(OUT):
        for block in range(WIDTH // BLOCK):
            here = tiles[out // 16, block]
            groups = here[:512].view(np.int8).reshape(8, 16, 4)[:, out % 16].reshape(-1)
            assert np.array_equal(groups, weight.values[out, block * BLOCK : (block + 1) * BLOCK])
            assert here[512:].view(np.float16)[out % 16] == weight.scales[out, block]
    assert not tiles[2, :, 512:].view(np.float16)[:, OUT % 16 :].any()


def test_int4_lies_in_groups_of_four_inputs_and_the_four_sixteen_further_on() -> None:
    weight = quantised_int4(VALUES)
    assert weight.scales is not None and weight.minima is not None
    tiles = tiles_of(weight).reshape(TILES, WIDTH // BLOCK, 256 + 64)
    for out in range(OUT):
        for block in range(WIDTH // BLOCK):
            here = tiles[out // 16, block]
            groups = here[:256].reshape(4, 16, 4)[:, out % 16].reshape(-1)
            assert np.array_equal(groups, weight.values[out, block * 16 : (block + 1) * 16])
            assert here[256:288].view(np.float16)[out % 16] == weight.scales[out, block]
            assert here[288:].view(np.float16)[out % 16] == weight.minima[out, block]
    assert not tiles[2, :, 256:].view(np.float16).reshape(-1, 2, 16)[:, :, OUT % 16 :].any()


def test_tiles_of_gate_and_up_take_turns() -> None:
    gate, up = quantised_int4(VALUES[:32]), quantised_int4(-VALUES[:32])
    both = interleaved(gate, up)
    assert both is not None
    tiles = tiles_of(both)
    assert np.array_equal(tiles[0::2], tiles_of(gate))
    assert np.array_equal(tiles[1::2], tiles_of(up))
    assert interleaved(gate, quantised_int8(VALUES[:32])) is None


def test_vectors_are_filled_up_with_zeros() -> None:
    assert padded(np.arange(17, dtype=np.float32)).tolist() == [*range(17), *[0] * 15]
    assert len(padded(np.ones(32, np.float32))) == 32
