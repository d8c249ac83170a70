# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# torch and transformers declare some of their types in part only.
"""Native runners on random models, for any instruction set, weight type and number of threads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from engine.kernels.library import Pool, load
from engine.loading.parts import model_shape
from engine.model.native import NativeModel, NativeRunner, Rotary, weights_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.loading.weights import BlockWeight, WeightType


def rotary_of(config: Any) -> Rotary:
    rotary: Any = LlamaRotaryEmbedding(config)
    frequencies = np.asarray(rotary.inv_freq.float().numpy(), np.float32)
    return Rotary(frequencies, float(rotary.attention_scaling))


def native_weights(model: Any, matrices: WeightType) -> dict[str, BlockWeight]:
    tensors = dict(model.state_dict())
    if model.config.tie_word_embeddings:
        del tensors["lm_head.weight"]
    return weights_of(tensors, matrices)


def native_runner(
    model: Any,
    matrices: WeightType = "float32",
    *,
    weights: Mapping[str, BlockWeight] | None = None,
    isa: str | None = None,
    threads: int = 2,
    num_blocks: int = 48,
    block_size: int = 16,
) -> NativeRunner:
    """`model` as transformers has it; `weights` instead of its own."""
    native = NativeModel(
        Pool(load(isa), threads),
        model_shape(model.config),
        native_weights(model, matrices) if weights is None else weights,
        rotary_of(model.config),
    )
    return NativeRunner(native, num_blocks=num_blocks, block_size=block_size)
