# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# torch and transformers declare some of their types in part only.
"""Graph runners on random models, with the reference kernels: what a GPU runs, run by the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from engine.kernels.device import Reference
from engine.loading.parts import build_model, model_shape
from engine.model.attention import small_products
from engine.model.graph_head import GraphHeadRunner
from engine.model.graph_runner import GraphRunner
from engine.model.invariance import Findings
from engine.model.kv_cache import KVCache

if TYPE_CHECKING:
    from engine.model.llama import LlamaModel
    from engine.model.torch_head import TorchHead

BLOCK = 16
BLOCKS = 24
CPU = torch.device("cpu")


def loaded(model: Any, *, exact: bool, dtype: torch.dtype = torch.float32) -> LlamaModel:
    """`model` as transformers has it."""
    tensors = {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        del tensors["lm_head.weight"]
    return build_model(model.config, tensors, exact=exact)


def graph_runner(
    model: LlamaModel,
    *,
    most_rows: int = 200,
    tile_rows: int = 4,
    head: TorchHead | None = None,
) -> GraphRunner:
    shape = model.shape
    cache = KVCache(
        layers=shape.layers,
        num_blocks=BLOCKS + 1,
        block_size=BLOCK,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        dtype=model.dtype,
        device=model.device,
    )
    product = torch.bmm
    if model.row_sizes is not None:
        product = small_products(shape.head_dim, CPU, Findings(CPU))
    return GraphRunner(
        model,
        cache,
        Reference(shape, product, tile_rows=tile_rows),
        most_rows=most_rows,
        most_sequences=8,
        context=BLOCKS * BLOCK,
        head=head,
    )


def head_runner(runner: GraphRunner, head: TorchHead) -> GraphHeadRunner:
    """`runner` was made with `head`."""
    kernels = Reference(head.shape, torch.bmm, tile_rows=1)
    return GraphHeadRunner(runner, kernels, most_sequences=8, context=BLOCKS * BLOCK)


def model_of(config: Any, seed: int = 4) -> Any:
    """Its shape's own random weights."""
    from tests import models

    assert model_shape(config).context >= BLOCKS * BLOCK
    return models.random_model(config, seed=seed)
