"""Weights of one model, or of a draft head, packed for the CPU kernels, and the C structures that
point to them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from engine.kernels.build import NoKernelsError
from engine.kernels.library import LANES, Layer, Model
from engine.kernels.pack import PackedWeight, interleaved, padded
from engine.loading.weights import stacked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from engine.kernels.library import Pool
    from engine.loading.weights import BlockWeight
    from engine.model.llama import ModelShape

INTEGER_WIDTH = 32
"""Inputs per block of the integer kinds."""


class Rotary(NamedTuple):
    """Rotary embedding: `inverse_frequencies` [head_dim / 2] float32, `scale` of its result."""

    inverse_frequencies: NDArray[np.float32]
    scale: float


class PackedModel:
    """What a model and a head have in common. Holds no per-sequence state."""

    def __init__(self, pool: Pool, shape: ModelShape, weights: Mapping[str, BlockWeight]) -> None:
        """Raises NoKernelsError for a shape the kernels do not take."""
        self.shape = shape
        self.pool = pool
        self.wide_cache = False
        """Whether keys and values are kept in float32; else in bfloat16."""
        self._weights = weights
        self._frame: dict[str, Any] = {}
        """Fields of the C structure that point somewhere."""
        self._kept: list[object] = []
        """What the C structures point to."""
        self._packed_bytes = 0
        _check_shape(shape)

    @property
    def bytes(self) -> int:
        """Memory of the weights."""
        return self._packed_bytes

    def arguments(self, *, num_blocks: int, block_size: int) -> Model:
        """The C structure; what it points to lives as long as this object."""
        shape = self.shape
        return Model(
            vocab=shape.vocab,
            hidden=shape.hidden,
            intermediate=shape.intermediate,
            layers=shape.layers,
            heads=shape.heads,
            kv_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            context=shape.context,
            block_size=block_size,
            num_blocks=num_blocks,
            wide_cache=int(self.wide_cache),
            rms_eps=shape.rms_eps,
            query_scale=shape.head_dim**-0.5,
            **self._frame,
        )

    def _layer(self, prefix: str, attention_norm: str = "input_layernorm") -> Layer:
        def matrix(name: str) -> BlockWeight:
            return self._weights[f"{prefix}{name}.weight"]

        parts = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]
        qkv = stacked([matrix(name) for name in parts])
        gate, up = matrix("mlp.gate_proj"), matrix("mlp.up_proj")
        gate_up = interleaved(gate, up)
        if qkv is None or gate_up is None:
            raise NoKernelsError(f"{prefix}* mixes weight types within one product")
        return Layer(
            attention_norm=self._vector(f"{prefix}{attention_norm}.weight"),
            mlp_norm=self._vector(f"{prefix}post_attention_layernorm.weight"),
            qkv=self._pack(qkv, self._bias([prefix + name for name in parts])).struct,
            out=self._packed(f"{prefix}self_attn.o_proj").struct,
            gate_up=self._pack(gate_up, self._gate_up_bias(prefix)).struct,
            down=self._packed(f"{prefix}mlp.down_proj").struct,
        )

    def _packed(self, name: str) -> PackedWeight:
        return self._pack(self._weights[f"{name}.weight"], self._bias([name]))

    def _pack(self, weight: BlockWeight, bias: NDArray[np.float32] | None) -> PackedWeight:
        packed = PackedWeight(self.pool.library, weight, bias)
        self._kept.append(packed)
        self._packed_bytes += packed.bytes
        return packed

    def _bias(self, names: list[str]) -> NDArray[np.float32] | None:
        found = [self._weights.get(f"{name}.bias") for name in names]
        if found[0] is None:
            return None
        return np.concatenate([bias.values.reshape(-1) for bias in found if bias is not None])

    def _gate_up_bias(self, prefix: str) -> NDArray[np.float32] | None:
        both = self._bias([f"{prefix}mlp.gate_proj", f"{prefix}mlp.up_proj"])
        if both is None:
            return None
        return both.reshape(2, -1, LANES).swapaxes(0, 1).reshape(-1)

    def _vector(self, name: str) -> int:
        """Address of a float32 vector, padded to whole lanes."""
        values = padded(self._weights[name].values.reshape(-1))
        self._kept.append(values)
        return values.ctypes.data

    def _rotation(self, rotary: Rotary, context: int) -> dict[str, int]:
        """cos and sin [context, head_dim / 2] of float32 angles, computed in double precision."""
        places = np.arange(context, dtype=np.float32)
        angles = np.outer(places, rotary.inverse_frequencies).astype(np.float64)
        cosines = (np.cos(angles) * rotary.scale).astype(np.float32)
        sines = (np.sin(angles) * rotary.scale).astype(np.float32)
        self._kept += [cosines, sines]
        return {"cosines": cosines.ctypes.data, "sines": sines.ctypes.data}


def _check_shape(shape: ModelShape) -> None:
    attended = shape.heads * shape.head_dim
    for name, width in (
        ("hidden size", shape.hidden),
        ("intermediate size", shape.intermediate),
        ("attention width", attended),
    ):
        if width % INTEGER_WIDTH:
            raise NoKernelsError(f"the {name} {width} is no multiple of {INTEGER_WIDTH}")
    if shape.head_dim % LANES:
        raise NoKernelsError(f"the head size {shape.head_dim} is no multiple of {LANES}")
