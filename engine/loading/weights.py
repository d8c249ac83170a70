"""Weights as the CPU kernels take them: by name, in a checkpoint's own blocks or quantised here.

The block formats are GGUF's: Q8_0 (32 int8 and a scale) and Q4_1 (32 nibbles, a scale and a
minimum, both halves).
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch
    from numpy.typing import NDArray

BLOCK = 32
"""Inputs that share a scale."""
INT8_LARGEST = 127.0
INT4_LARGEST = 15.0

WeightType: TypeAlias = Literal["float32", "bfloat16", "int8", "int4"]


class Kind(IntEnum):
    """How a weight is stored; numbers as in kernels/cpu/linear.h."""

    FLOAT32 = 0
    BFLOAT16 = 1
    INT8 = 2
    INT4 = 3


class BlockWeight(NamedTuple):
    """A matrix [out, in]. `values`: float32 [out, in], bfloat16 bits uint16 [out, in], int8
    [out, in], or uint8 [out, in / 2] where byte i of a block's 16 holds inputs i (low) and 16 + i.
    `scales` and `minima`: float16 [out, in / 32], for the integer kinds.
    """

    kind: Kind
    values: NDArray[Any]
    scales: NDArray[np.float16] | None = None
    minima: NDArray[np.float16] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        rows, width = self.values.shape
        return rows, width * 2 if self.kind is Kind.INT4 else width

    def rows(self, order: NDArray[np.int64]) -> BlockWeight:
        """With the rows in another order."""
        return self.mapped(lambda part: part[order])

    def mapped(self, change: Callable[[NDArray[Any]], NDArray[Any]]) -> BlockWeight:
        """With values, scales and minima changed alike."""
        scales = None if self.scales is None else change(self.scales)
        minima = None if self.minima is None else change(self.minima)
        return BlockWeight(self.kind, change(self.values), scales, minima)


def stacked(weights: list[BlockWeight]) -> BlockWeight | None:
    """One matrix with the outputs of all, in order; None where they are not of one kind."""
    first = weights[0]
    if any(weight.kind is not first.kind for weight in weights):
        return None
    values = np.concatenate([weight.values for weight in weights])
    scales = [weight.scales for weight in weights if weight.scales is not None]
    minima = [weight.minima for weight in weights if weight.minima is not None]
    return BlockWeight(
        first.kind,
        values,
        np.concatenate(scales) if scales else None,
        np.concatenate(minima) if minima else None,
    )


def of_tensor(tensor: torch.Tensor, kind: WeightType) -> BlockWeight:
    """A float matrix [out, in], quantised as asked; in must be a multiple of 32 for that."""
    import torch

    if kind == "bfloat16":
        bits = tensor.to(torch.bfloat16).contiguous().view(torch.int16).numpy().view(np.uint16)
        return BlockWeight(Kind.BFLOAT16, bits)
    values = tensor.float().contiguous().numpy()
    if kind == "float32":
        return BlockWeight(Kind.FLOAT32, values)
    return quantised_int8(values) if kind == "int8" else quantised_int4(values)


def quantised_int8(values: NDArray[np.float32]) -> BlockWeight:
    """Q8_0: nearest multiple of a block's largest magnitude / 127. [out, in]."""
    out, width = values.shape
    blocks = values.reshape(out, width // BLOCK, BLOCK)
    scales = (np.abs(blocks).max(2) / INT8_LARGEST).astype(np.float16)
    wide = scales.astype(np.float32)[:, :, None]
    q = np.rint(np.divide(blocks, wide, out=np.zeros_like(blocks), where=wide > 0))
    q = np.clip(q, -INT8_LARGEST, INT8_LARGEST).astype(np.int8)
    return BlockWeight(Kind.INT8, q.reshape(out, width), scales)


def quantised_int4(values: NDArray[np.float32]) -> BlockWeight:
    """Q4_1: sixteen even steps from a block's least to its largest value. [out, in]."""
    out, width = values.shape
    blocks = values.reshape(out, width // BLOCK, BLOCK)
    low = blocks.min(2)
    scales = ((blocks.max(2) - low) / INT4_LARGEST).astype(np.float16)
    minima = low.astype(np.float16)
    wide = scales.astype(np.float32)[:, :, None]
    above = blocks - minima.astype(np.float32)[:, :, None]
    q = np.rint(np.divide(above, wide, out=np.zeros_like(blocks), where=wide > 0))
    q = np.clip(q, 0, INT4_LARGEST).astype(np.uint8)
    half = BLOCK // 2
    nibbles = q[:, :, :half] | (q[:, :, half:] << 4)
    return BlockWeight(Kind.INT4, nibbles.reshape(out, width // 2), scales, minima)


GGUF_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def read_gguf(path: Path, *, heads: int, kv_heads: int) -> dict[str, BlockWeight] | None:
    """Every matrix and vector of a GGUF file of a Llama-family model, by its Hugging Face name.

    Vectors are matrices of one row. None where a tensor is of a type the kernels do not take as it
    is (then the float copy is quantised instead).
    """
    from gguf import GGMLQuantizationType, GGUFReader

    weights: dict[str, BlockWeight] = {}
    for tensor in GGUFReader(path).tensors:
        name = _hugging_face_name(tensor.name)
        if name is None:
            continue
        data = np.asarray(tensor.data)
        rows = data.reshape(-1, data.shape[-1])
        match tensor.tensor_type:
            case GGMLQuantizationType.F32:
                weight = BlockWeight(Kind.FLOAT32, rows)
            case GGMLQuantizationType.Q8_0:
                blocks = rows.reshape(len(rows), -1, 2 + BLOCK)
                q = np.ascontiguousarray(blocks[:, :, 2:]).view(np.int8)
                weight = BlockWeight(Kind.INT8, q.reshape(len(rows), -1), _halves(blocks, 0))
            case GGMLQuantizationType.Q4_1:
                blocks = rows.reshape(len(rows), -1, 4 + BLOCK // 2)
                q = np.ascontiguousarray(blocks[:, :, 4:]).reshape(len(rows), -1)
                weight = BlockWeight(Kind.INT4, q, _halves(blocks, 0), _halves(blocks, 2))
            case _:
                return None
        # llama.cpp turns pairs of neighbours where the checkpoint turns halves.
        for part, count in (("q_proj", heads), ("k_proj", kv_heads)):
            if name.endswith(f"{part}.weight"):
                weight = weight.rows(_unpermuted(len(rows), count))
            elif name.endswith(f"{part}.bias"):
                order = _unpermuted(rows.shape[1], count)
                weight = BlockWeight(Kind.FLOAT32, rows[:, order])
        weights[name] = weight
    return weights


def _halves(blocks: NDArray[np.generic], at: int) -> NDArray[np.float16]:
    """The half at byte `at` of every block. [rows, blocks, bytes] -> [rows, blocks]."""
    return np.ascontiguousarray(blocks[:, :, at : at + 2]).view(np.float16)[:, :, 0]


def _unpermuted(rows: int, heads: int) -> NDArray[np.int64]:
    """Which row of the file each row of the checkpoint is."""
    return np.arange(rows).reshape(heads, rows // heads // 2, 2).swapaxes(1, 2).reshape(-1)


def _hugging_face_name(name: str) -> str | None:
    """None for what is no weight of the model, such as precomputed rotary frequencies."""
    stem, _, ending = name.rpartition(".")
    if stem.startswith("blk."):
        _, number, part = stem.split(".", 2)
        known = GGUF_NAMES.get(part)
        return None if known is None else f"model.layers.{number}.{known}.{ending}"
    known = GGUF_NAMES.get(stem)
    return None if known is None else f"{known}.{ending}"
