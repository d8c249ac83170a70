"""Models of known shapes with random weights: what a step costs does not depend on their values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from engine.kernels.device import Reference
from engine.model.graph_runner import GraphRunner, row_counts
from engine.model.kv_cache import KVCache
from engine.model.llama import LlamaModel, ModelShape

if TYPE_CHECKING:
    from engine.kernels.device import DeviceKernels

BLOCK = 16
SMALL, MIDDLE, LARGE = "135M", "1B", "8B"
SHAPES = {
    SMALL: ModelShape(49152, 576, 1536, 30, 9, 3, 64, 1e-5, 8192),
    MIDDLE: ModelShape(128256, 2048, 8192, 16, 32, 8, 64, 1e-5, 8192),
    LARGE: ModelShape(128256, 4096, 14336, 32, 32, 8, 128, 1e-5, 8192),
}
"""SmolLM2-135M, Llama 3.2 1B, Llama 3.1 8B."""
TINY = {name: ModelShape(320, 64, 96, 2, 4, 2, 16, 1e-5, 1024) for name in SHAPES}


def model_of(shape: ModelShape, *, tied: bool, exact: bool, device: torch.device) -> LlamaModel:
    """Weights are drawn on the device, in bfloat16."""
    draw = torch.Generator(device).manual_seed(0)

    def random(*size: int) -> torch.Tensor:
        values = torch.empty(size, dtype=torch.bfloat16, device=device)
        return values.normal_(0.0, size[-1] ** -0.5, generator=draw)

    wide, narrow = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    hidden, inner = shape.hidden, shape.intermediate
    sizes = {
        "self_attn.q_proj": (wide, hidden),
        "self_attn.k_proj": (narrow, hidden),
        "self_attn.v_proj": (narrow, hidden),
        "self_attn.o_proj": (hidden, wide),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    ones = torch.ones(hidden, dtype=torch.bfloat16, device=device)
    tensors = {"model.embed_tokens.weight": random(shape.vocab, hidden), "model.norm.weight": ones}
    if not tied:
        tensors["lm_head.weight"] = random(shape.vocab, hidden)
    for number in range(shape.layers):
        prefix = f"model.layers.{number}."
        tensors |= {f"{prefix}{name}.weight": random(*size) for name, size in sizes.items()}
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{prefix}{norm}.weight"] = ones
    exponents = torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim
    return LlamaModel(
        shape,
        tensors,
        inverse_frequencies=10000.0**-exponents,
        rope_scale=1.0,
        exact=exact,
        progress=lambda _phase, _fraction: None,
    )


def runner_of(model: LlamaModel, *, context: int, most_rows: int, sequences: int) -> GraphRunner:
    """With Triton's kernels on a GPU, else with the reference; recorded where that can be."""
    shape, device = model.shape, model.device
    cache = KVCache(
        layers=shape.layers,
        num_blocks=sequences * -(-context // BLOCK) + 1,
        block_size=BLOCK,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        dtype=model.dtype,
        device=device,
    )
    kernels: DeviceKernels = Reference(shape, torch.bmm, tile_rows=4)
    if device.type == "cuda":
        from engine.kernels.cuda.kernels import TritonKernels

        rows = row_counts(most_rows, model.row_sizes)[-1]
        kernels = TritonKernels(
            shape, block_size=BLOCK, context=context, most_rows=rows, device=device
        )
    runner = GraphRunner(
        model, cache, kernels, most_rows=most_rows, most_sequences=sequences, context=context
    )
    runner.record()
    return runner
