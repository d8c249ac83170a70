# pyright: reportUnknownMemberType=false
# torch and gguf declare some of their types in part only.
"""Weights as kernels take them: quantised here, or a GGUF file's own blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, dequantize, quantize

from engine.loading.weights import (
    BLOCK,
    BlockWeight,
    Kind,
    of_tensor,
    quantised_int4,
    quantised_int8,
    read_gguf,
    stacked,
)
from tests.unit.engine.kernels.test_linear import meant

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

HIDDEN, HEADS, KV_HEADS = 64, 4, 2
HALF_EPS = 2.0**-11
"""Largest relative error of rounding to a half."""


def heavy(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_t(2, shape).astype(np.float32)


def by_block(values: NDArray[np.generic]) -> NDArray[np.generic]:
    return values.reshape(len(values), -1, BLOCK)


def test_int8_is_within_half_a_step() -> None:
    """And 127 steps more of what rounding the step to a half costs."""
    values = heavy(1, 50, 192)
    largest = np.abs(by_block(values)).max(2, keepdims=True).astype(np.float64)
    error = np.abs(by_block(meant(quantised_int8(values)) - values))
    assert (error <= largest / 127 * (0.5 + HALF_EPS) * (1 + 128 * HALF_EPS)).all()


def test_int4_is_within_half_a_step() -> None:
    """And what rounding step and minimum to halves costs."""
    values = heavy(2, 50, 192)
    blocks = by_block(values).astype(np.float64)
    low, high = blocks.min(2, keepdims=True), blocks.max(2, keepdims=True)
    error = np.abs(by_block(meant(quantised_int4(values)) - values))
    bound = (high - low) / 15 * (0.5 + 16 * HALF_EPS) + 2 * np.abs(low) * HALF_EPS
    assert (error <= bound).all()


@pytest.mark.parametrize("quantised", [quantised_int8, quantised_int4])
def test_flat_blocks_are_exact(quantised: type) -> None:
    values = np.concatenate([np.zeros((1, 64)), np.full((1, 64), 0.5)]).astype(np.float32)
    assert np.allclose(meant(quantised(values)), values, rtol=2 * HALF_EPS)
    assert not meant(quantised(values))[0].any()


def test_tensor_is_kept_in_the_type_asked_for() -> None:
    tensor = torch.from_numpy(heavy(3, 6, 64))
    assert np.array_equal(meant(of_tensor(tensor, "float32")), tensor.numpy())
    rounded = of_tensor(tensor, "bfloat16")
    assert np.array_equal(meant(rounded), tensor.to(torch.bfloat16).float().numpy())
    half = of_tensor(tensor.to(torch.bfloat16), "float32")
    assert np.array_equal(meant(half), meant(rounded))
    assert [of_tensor(tensor, kind).kind for kind in ("int8", "int4")] == [Kind.INT8, Kind.INT4]


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8", "int4"])
def test_rows_and_stacks_keep_what_weights_mean(kind: str) -> None:
    parts = [of_tensor(torch.from_numpy(heavy(seed, 4 + seed, 64)), kind) for seed in range(3)]  # type: ignore[arg-type]
    whole = stacked(parts)
    assert whole is not None and whole.shape == (15, 64)
    assert np.array_equal(meant(whole), np.concatenate([meant(part) for part in parts]))
    order = np.random.default_rng(0).permutation(15)
    assert np.array_equal(meant(whole.rows(order)), meant(whole)[order])


def test_weights_of_different_kinds_are_not_stacked() -> None:
    values = heavy(1, 4, 64)
    assert stacked([quantised_int4(values), quantised_int8(values)]) is None


QUANTISED = {
    "blk.0.attn_q": (HIDDEN, HIDDEN),
    "blk.0.attn_k": (HIDDEN // 2, HIDDEN),
    "blk.0.ffn_up": (96, HIDDEN),
    "output": (70, HIDDEN),
}
PLAIN = {
    "blk.0.attn_q.bias": HIDDEN,
    "blk.0.attn_k.bias": HIDDEN // 2,
    "output_norm.weight": HIDDEN,
}


def write_gguf(path: Path, kind: GGMLQuantizationType) -> None:
    writer = GGUFWriter(path, "llama")
    for number, (name, shape) in enumerate(QUANTISED.items()):
        data = heavy(number, *shape)
        if kind is not GGMLQuantizationType.F32:
            data = quantize(data, kind)
        writer.add_tensor(f"{name}.weight", data, raw_dtype=kind)
    for number, (name, size) in enumerate(PLAIN.items()):
        writer.add_tensor(name, heavy(10 + number, size))
    writer.add_tensor("rope_freqs.weight", np.ones(8, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def halves_first(rows: NDArray[np.generic], heads: int) -> NDArray[np.generic]:
    """As transformers reads llama.cpp's files: pairs of neighbours become halves of a head."""
    pairs = rows.reshape(heads, len(rows) // heads // 2, 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


@pytest.mark.parametrize(
    ("kind", "ours"),
    [
        (GGMLQuantizationType.F32, Kind.FLOAT32),
        (GGMLQuantizationType.Q8_0, Kind.INT8),
        (GGMLQuantizationType.Q4_1, Kind.INT4),
    ],
)
def test_gguf_blocks_mean_what_the_gguf_library_says(
    tmp_path: Path, kind: GGMLQuantizationType, ours: Kind
) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(path, kind)
    weights = read_gguf(path, heads=HEADS, kv_heads=KV_HEADS)
    assert weights is not None
    stored = {
        tensor.name: dequantize(tensor.data, tensor.tensor_type)
        for tensor in GGUFReader(path).tensors
    }
    for name, here, heads in (
        ("blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight", HEADS),
        ("blk.0.attn_k.weight", "model.layers.0.self_attn.k_proj.weight", KV_HEADS),
        ("blk.0.ffn_up.weight", "model.layers.0.mlp.up_proj.weight", 0),
        ("output.weight", "lm_head.weight", 0),
    ):
        expected = halves_first(stored[name], heads) if heads else stored[name]
        assert weights[here].kind is ours
        assert np.allclose(meant(weights[here]), expected, rtol=1e-6, atol=1e-7)
    for name, here, heads in (
        ("blk.0.attn_q.bias", "model.layers.0.self_attn.q_proj.bias", HEADS),
        ("blk.0.attn_k.bias", "model.layers.0.self_attn.k_proj.bias", KV_HEADS),
        ("output_norm.weight", "model.norm.weight", 0),
    ):
        expected = halves_first(stored[name], heads) if heads else stored[name]
        assert np.array_equal(weights[here].values, expected[None])
    assert len(weights) == len(QUANTISED) + len(PLAIN)


def test_gguf_of_other_types_is_left_to_its_float_copy(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(path, GGMLQuantizationType.Q5_1)
    assert read_gguf(path, heads=HEADS, kv_heads=KV_HEADS) is None


def test_weight_says_how_many_inputs_it_has() -> None:
    assert quantised_int4(heavy(1, 5, 64)).shape == (5, 64)
    assert quantised_int8(heavy(1, 5, 64)).shape == (5, 64)
    assert BlockWeight(Kind.FLOAT32, heavy(1, 5, 64)).shape == (5, 64)
