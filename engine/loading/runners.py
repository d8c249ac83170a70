"""What runs a loaded model, and the memory for its keys and values."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

from engine.config import CPU_CACHE_MIB
from engine.errors import EngineConfigError
from engine.model.batch import Span
from engine.model.draft_head import PROFILE_SEQUENCES
from engine.model.graph_head import GraphHeadRunner
from engine.model.graph_runner import GraphRunner, row_counts
from engine.model.kv_cache import KVCache
from engine.model.native import NativeModel, NativeRunner
from engine.model.native_head import NativeHead, NativeHeadRunner
from engine.model.runner import Runner
from engine.model.torch_head import TorchHead
from engine.planning.memory import MIB, DeviceMemory, cache_blocks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.config import EngineConfig
    from engine.kernels.device import DeviceKernels
    from engine.model.draft_head import HeadRunner
    from engine.model.llama import LlamaModel, ModelShape
    from engine.model.runner import StepRunner

log = logging.getLogger(__name__)

LEAST_ROWS = 128
"""The profile and the sentinel have steps of their own, of so many rows at most."""


def planned_blocks(
    config: EngineConfig,
    models: Sequence[LlamaModel | NativeModel],
    head: NativeHead | TorchHead | None,
    context: int,
) -> int:
    """KV blocks for all models together: as configured, else what memory holds.

    `context`: most tokens a sequence may have. Raises EngineConfigError for what does not fit.
    """
    per_block = config.block_size * sum(
        KVCache.bytes_per_token(m.shape.layers, m.shape.kv_heads, m.shape.head_dim, _cached(m))
        for m in models
    )
    if head is not None:
        per_block += config.block_size * head.bytes_per_token()
    if isinstance(models[0], NativeModel) or models[0].device.type == "cpu":
        return _cpu_blocks(config, per_block)
    on_device = [model for model in models if not isinstance(model, NativeModel)]
    on_it = head if isinstance(head, TorchHead) else None
    memory = measured_memory(config, on_device, context, on_it)
    blocks = cache_blocks(
        memory,
        per_block,
        asked=config.kv_blocks,
        asked_mib=config.kv_memory_mib,
        useful=config.max_sequences * -(-context // config.block_size),
    )
    log.info(
        "%s: %d MiB free after the weights; a step takes %d MiB, its graphs %d; %d KV blocks take"
        " %d MiB",
        memory.name,
        memory.free // MIB,
        memory.step // MIB,
        memory.graphs // MIB,
        blocks,
        blocks * per_block // MIB,
    )
    return blocks


def _cpu_blocks(config: EngineConfig, per_block: int) -> int:
    if config.kv_blocks is not None:
        return config.kv_blocks
    mib = config.kv_memory_mib or CPU_CACHE_MIB
    blocks = mib * MIB // per_block
    if blocks < 1:
        raise EngineConfigError(
            f"kv_memory_mib={mib} holds no block of {config.block_size} tokens"
            f" ({per_block / MIB:.1f} MiB)",
            "kv_memory_mib",
        )
    return blocks


def measured_memory(
    config: EngineConfig,
    models: Sequence[LlamaModel],
    context: int,
    head: TorchHead | None = None,
) -> DeviceMemory:
    """Make each model's largest step over a cache of a few blocks, and see what it takes. `head`:
    the first model's.
    """
    device = models[0].device
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    runners = [
        _on_device(model, 1, config, context, None if number else head)
        for number, model in enumerate(models)
    ]
    drafting = None if head is None else _drafting(runners[0], head, config, context)
    standing = torch.cuda.memory_allocated(device) - before
    rows = min(config.max_step_tokens, context)
    largest = Span([0] * rows, 0, [0] * -(-rows // config.block_size), 0)
    if drafting is not None:
        drafting.profile(1)
        drafting = None
    while runners:
        runners.pop().run([largest])
        torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device) - before
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    # Recorded steps share one pool, which holds what the largest of them takes in passing.
    return DeviceMemory(str(device), total, free, step=peak, graphs=peak - standing)


def runs_heads(model: LlamaModel | NativeModel) -> bool:
    """Whether a draft head can run beside it."""
    return isinstance(model, NativeModel) or model.device.type != "cpu"


def runner_of(
    model: LlamaModel | NativeModel,
    num_blocks: int,
    config: EngineConfig,
    context: int,
    head: NativeHead | TorchHead | None = None,
) -> StepRunner:
    """Over a cache of `num_blocks`; sequences have at most `context` tokens. `head` is to draft
    beside it: see `head_runner_of`.
    """
    if isinstance(model, NativeModel):
        return NativeRunner(model, num_blocks=num_blocks, block_size=config.block_size)
    if model.device.type == "cpu":
        return Runner(model, _cache(model, num_blocks, config.block_size))
    on_it = head if isinstance(head, TorchHead) else None
    runner = _on_device(model, num_blocks, config, context, on_it)
    runner.record()
    free, total = torch.cuda.mem_get_info(model.device)
    log.info(
        "%s: %d steps and choices recorded; %d of %d MiB are left",
        model.device,
        runner.recorded,
        free // MIB,
        total // MIB,
    )
    return runner


def head_runner_of(
    runner: StepRunner, head: NativeHead | TorchHead, config: EngineConfig, context: int
) -> HeadRunner:
    """Beside the runner that `runner_of` made for the head, before its first step."""
    if isinstance(head, NativeHead):
        assert isinstance(runner, NativeRunner)
        return NativeHeadRunner(runner, head)
    assert isinstance(runner, GraphRunner)
    drafting = _drafting(runner, head, config, context)
    drafting.record()
    return drafting


def _drafting(
    runner: GraphRunner, head: TorchHead, config: EngineConfig, context: int
) -> GraphHeadRunner:
    sequences = max(config.max_sequences, PROFILE_SEQUENCES[-1])
    rows = row_counts(sequences, None)[-1]
    kernels = _triton(head.shape, config.block_size, context, rows, head.device)
    return GraphHeadRunner(runner, kernels, most_sequences=sequences, context=context)


def _on_device(
    model: LlamaModel,
    num_blocks: int,
    config: EngineConfig,
    context: int,
    head: TorchHead | None,
) -> GraphRunner:
    most_rows = max(config.max_step_tokens, LEAST_ROWS)
    rows = row_counts(most_rows, model.row_sizes)[-1]
    kernels = _triton(model.shape, config.block_size, context, rows, model.device)
    return GraphRunner(
        model,
        _cache(model, num_blocks + 1, config.block_size),
        kernels,
        most_rows=most_rows,
        most_sequences=config.max_sequences,
        context=context,
        head=head,
    )


def _triton(
    shape: ModelShape, block_size: int, context: int, most_rows: int, device: torch.device
) -> DeviceKernels:
    """`most_rows`: of a step once it is filled up. Raises EngineConfigError where Triton is missing
    or cannot serve this shape.
    """
    try:
        from engine.kernels.cuda.kernels import TritonKernels

        return TritonKernels(
            shape, block_size=block_size, context=context, most_rows=most_rows, device=device
        )
    except ImportError as error:
        raise EngineConfigError(
            f"device {str(device)!r} needs Triton, which comes with CUDA builds of PyTorch:"
            f" {error}",
            "device",
        ) from error
    except ValueError as error:
        raise EngineConfigError(str(error), "model") from error


def _cache(model: LlamaModel, num_blocks: int, block_size: int) -> KVCache:
    shape = model.shape
    return KVCache(
        layers=shape.layers,
        num_blocks=num_blocks,
        block_size=block_size,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        dtype=model.dtype,
        device=model.device,
    )


def _cached(model: LlamaModel | NativeModel) -> torch.dtype:
    """Type of its keys and values."""
    if not isinstance(model, NativeModel):
        return model.dtype
    return torch.float32 if model.wide_cache else torch.bfloat16
