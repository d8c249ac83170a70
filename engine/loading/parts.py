"""Everything an Engine is made of, built once: model, cache, scheduler, drafters, costs."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from engine.devices import chosen_device, prepare
from engine.drafters.suffix import Shelves
from engine.errors import EngineConfigError
from engine.kernels.build import NoKernelsError
from engine.kernels.library import Pool
from engine.kernels.library import load as load_library
from engine.loading.blocks import load_blocks
from engine.loading.checkpoint import DTYPES, Checkpoint, load_checkpoint, no_progress
from engine.loading.drafting import Live, build_drafting
from engine.loading.head import SHIPPED, load_head
from engine.loading.runners import head_runner_of, planned_blocks, runner_of, runs_heads
from engine.model.llama import LlamaModel, ModelShape
from engine.model.native import NativeModel, weights_of
from engine.model.native_head import NativeHead
from engine.model.packed import Rotary
from engine.model.torch_head import TorchHead
from engine.planning.memory import check_weights, weight_bytes
from engine.sampling.grammar import GrammarCompiler
from engine.sampling.grammars import Grammars
from engine.sampling.params import SamplingDefaults
from engine.scheduling.blocks import BlockManager
from engine.scheduling.scheduler import Scheduler
from engine.sentinel import SCRATCH_BLOCKS
from engine.text.detokenizer import TokenTable
from engine.text.prompts import PromptEncoder

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import LlamaConfig, PretrainedConfig

    from engine.config import EngineConfig
    from engine.drafting import Drafting
    from engine.model.runner import StepRunner
    from engine.scheduling.draft_length import StepCost

log = logging.getLogger(__name__)

TOKENIZER_PROBE = "Speculation is cheap; 1234 + ß = 日本語 🙂\n\tdef f(x): return x"


class Parts(NamedTuple):
    name: str
    prompts: PromptEncoder
    table: TokenTable
    grammars: GrammarCompiler
    defaults: SamplingDefaults
    eos_token_ids: frozenset[int]
    context_length: int
    runner: StepRunner
    dtype: str
    """Of the weights, in fact."""
    kernels: str
    """Which of them run: "torch", "native" with the instruction set, or "cuda" with the chip."""
    close: Callable[[], None]
    """Gives back what Python does not; nothing may run afterwards."""
    scheduler: Scheduler
    drafting: Drafting
    live: Live
    """Empty; what the engine puts there, drafters see."""
    shelves: Shelves
    """What the copying drafters remember of recent streams."""
    verify_cost: StepCost
    """Measured seconds of a step by rows."""


class _Place(NamedTuple):
    """Where models go."""

    device: torch.device
    pool: Pool | None
    """Threads for the native kernels; None where torch is to be used."""


class _Loaded(NamedTuple):
    checkpoint: Checkpoint
    model: LlamaModel | NativeModel


def load(config: EngineConfig, progress: Callable[[str, float | None], None]) -> Parts:
    """Raises CheckpointError or EngineConfigError when this cannot be served as configured."""
    threads = config.threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    device = chosen_device(config.device, config.kernels)
    prepare(device, exact=config.mode == "exact")
    place = _Place(
        device, _native_pool(config, threads, progress) if device.type == "cpu" else None
    )
    target = _load_model(config.model, config, place, progress)
    draft = _load_draft(config, target.checkpoint, place, progress)
    head = _load_head(config, target, progress)
    longest = _longest(config, target.checkpoint.config)
    served = [one.model for one in (target, draft) if one is not None]
    num_blocks = planned_blocks(config, served, head, longest)
    # One sequence must always fit into all the blocks.
    context = min(longest, num_blocks * config.block_size)
    if draft is not None:
        _check_shapes(target.model.shape, draft.model.shape, context)
    # The sentinel's blocks lie behind those that the block manager hands out.
    runner = runner_of(target.model, num_blocks + SCRATCH_BLOCKS, config, context, head)
    draft_runner = runner_of(draft.model, num_blocks, config, context) if draft else None
    progress("measuring step costs", None)
    verify_cost = runner.profile(num_blocks)
    live = Live({}, {}, Grammars())
    shelves = Shelves()
    special = special_tokens(target.checkpoint, target.model.shape.vocab)
    drafting = build_drafting(
        config,
        live,
        shelves,
        special=special,
        num_blocks=num_blocks,
        verify_cost=verify_cost,
        head=head_runner_of(runner, head, config, context) if head else None,
        draft=draft_runner,
    )

    def close() -> None:
        for one in (runner, draft_runner):
            if one is not None:
                one.close()
        if place.pool is not None:
            place.pool.close()

    checkpoint = target.checkpoint
    table = TokenTable(checkpoint.tokenizer)
    return Parts(
        name=checkpoint.name,
        prompts=PromptEncoder(
            checkpoint.tokenizer,
            has_chat_template=checkpoint.has_chat_template,
            most_tokens=context - 1,
            longest_token=table.longest,
        ),
        table=table,
        grammars=GrammarCompiler(
            checkpoint.tokenizer, target.model.shape.vocab, sorted(checkpoint.eos_token_ids)
        ),
        defaults=SamplingDefaults(
            temperature=checkpoint.defaults.temperature,
            top_p=checkpoint.defaults.top_p,
            top_k=checkpoint.defaults.top_k,
            min_p=checkpoint.defaults.min_p,
        ),
        eos_token_ids=checkpoint.eos_token_ids,
        context_length=context,
        runner=runner,
        dtype=str(target.model.dtype).removeprefix("torch."),
        kernels=_kernels(target.model, place),
        close=close,
        scheduler=Scheduler(
            BlockManager(num_blocks, config.block_size, prefix_cache=config.prefix_cache),
            max_sequences=config.max_sequences,
            max_step_tokens=config.max_step_tokens,
        ),
        drafting=drafting,
        live=live,
        shelves=shelves,
        verify_cost=verify_cost,
    )


def check_same_tokenizer(target: Checkpoint, draft: Checkpoint) -> None:
    """Raise EngineConfigError unless token ids mean the same to both models."""
    ours, theirs = target.tokenizer, draft.tokenizer
    if ours.get_vocab() != theirs.get_vocab():
        raise EngineConfigError(
            f"the draft model {draft.name!r} has another vocabulary"
            f" ({len(theirs.get_vocab())} tokens) than {target.name!r}"
            f" ({len(ours.get_vocab())} tokens); both must use the same tokenizer",
            "draft_model",
        )
    if ours(TOKENIZER_PROBE).input_ids != theirs(TOKENIZER_PROBE).input_ids:
        raise EngineConfigError(
            f"the draft model {draft.name!r} splits text differently than {target.name!r};"
            " both must use the same tokenizer",
            "draft_model",
        )


def _check_shapes(target: ModelShape, draft: ModelShape, context: int) -> None:
    """Raise EngineConfigError unless the draft model knows every token and every position."""
    if draft.vocab != target.vocab:
        raise EngineConfigError(
            f"the draft model has logits for {draft.vocab} tokens, its target for {target.vocab};"
            " both must have the same number",
            "draft_model",
        )
    if draft.context < context:
        raise EngineConfigError(
            f"the draft model takes at most {draft.context} tokens, less than the context length"
            f" {context}: set context_length to {draft.context} or less",
            "context_length",
        )


def model_shape(config: PretrainedConfig) -> ModelShape:
    heads = config.num_attention_heads
    return ModelShape(
        vocab=config.vocab_size,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        layers=config.num_hidden_layers,
        heads=heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        rms_eps=config.rms_norm_eps,
        context=config.max_position_embeddings,
    )


def build_model(
    config: PretrainedConfig,
    tensors: dict[str, torch.Tensor],
    *,
    exact: bool,
    progress: Callable[[str, float | None], None] = no_progress,
    device: torch.device | None = None,
) -> LlamaModel:
    """Torch modules over a checkpoint's tensors, on `device` (None: where they are); rotary
    frequencies as transformers computes them.
    """
    rotary = rotary_of(config)
    return LlamaModel(
        model_shape(config),
        tensors,
        inverse_frequencies=torch.from_numpy(rotary.inverse_frequencies),
        rope_scale=rotary.scale,
        exact=exact,
        progress=progress,
        device=device,
    )


def rotary_of(config: PretrainedConfig) -> Rotary:
    # Typed for LlamaConfig; reads only the rope fields every supported architecture has.
    rotary = LlamaRotaryEmbedding(cast("LlamaConfig", config))
    if rotary.rope_type == "longrope":
        raise EngineConfigError(
            "rope type 'longrope' is not supported: its frequencies change with the text's length",
            "model",
        )
    return Rotary(rotary.inv_freq.float().numpy(), float(rotary.attention_scaling))


def _native_pool(
    config: EngineConfig, threads: int, progress: Callable[[str, float | None], None]
) -> Pool | None:
    """Threads for the native kernels; None where torch is to be used."""
    if config.kernels == "torch":
        return None
    progress("preparing the kernels", None)
    try:
        return Pool(load_library(), threads)
    except NoKernelsError as error:
        if config.kernels == "native":
            raise EngineConfigError(str(error), "kernels") from error
        log.warning("serving with torch, which is slower: %s", error)
        return None


def _load_model(
    spec: str,
    config: EngineConfig,
    place: _Place,
    progress: Callable[[str, float | None], None],
) -> _Loaded:
    checkpoint = load_checkpoint(spec, progress)
    progress(f"loading the weights of {checkpoint.name}", None)
    if place.pool is not None:
        try:
            return _Loaded(checkpoint, _native_model(checkpoint, config, place.pool))
        except NoKernelsError as error:
            if config.kernels == "native":
                raise EngineConfigError(f"{checkpoint.name}: {error}", "kernels") from error
            log.warning("serving %s with torch, which is slower: %s", checkpoint.name, error)
    if config.dtype in ("int8", "int4"):
        raise EngineConfigError(
            f"dtype {config.dtype!r} needs the native kernels, which are for CPUs; with torch:"
            " float32, bfloat16, float16",
            "dtype",
        )
    dtype = "bfloat16" if config.dtype == "auto" else config.dtype
    if place.device.type == "cuda":
        tied = checkpoint.config.tie_word_embeddings
        size = weight_bytes(model_shape(checkpoint.config), DTYPES[dtype].itemsize, tied=tied)
        free, _ = torch.cuda.mem_get_info(place.device)
        check_weights({checkpoint.name: size}, str(place.device), free)
    model = build_model(
        checkpoint.config,
        checkpoint.tensors(dtype),
        exact=config.mode == "exact",
        progress=progress,
        device=place.device,
    )
    return _Loaded(checkpoint, model)


def _load_draft(
    config: EngineConfig,
    target: Checkpoint,
    place: _Place,
    progress: Callable[[str, float | None], None],
) -> _Loaded | None:
    """The draft model; None without one."""
    if config.draft_model is None:
        if config.drafter == "model":
            raise EngineConfigError("drafter 'model' needs a draft_model", "draft_model")
        return None
    draft = _load_model(config.draft_model, config, place, progress)
    check_same_tokenizer(target, draft.checkpoint)
    return draft


def _native_model(checkpoint: Checkpoint, config: EngineConfig, pool: Pool) -> NativeModel:
    shape = model_shape(checkpoint.config)
    rotary = rotary_of(checkpoint.config)
    weights = None
    if config.dtype == "float16":
        raise NoKernelsError("the native kernels do not compute in float16")
    if config.dtype == "auto" and checkpoint.blocks is not None:
        weights = load_blocks(checkpoint.blocks)
    if weights is None:
        asked = "bfloat16" if config.dtype == "auto" else config.dtype
        weights = weights_of(checkpoint.tensors(None), asked)
    return NativeModel(pool, shape, weights, rotary)


def _load_head(
    config: EngineConfig, target: _Loaded, progress: Callable[[str, float | None], None]
) -> NativeHead | TorchHead | None:
    """The draft head asked for, or the one that comes with Wetink; None without."""
    model, checkpoint = target.model, target.checkpoint
    asked = config.draft_head
    folder = SHIPPED.get(checkpoint.name) if asked is None else Path(asked).expanduser()
    if folder is None:
        return None
    if not runs_heads(model):
        if asked is None and config.drafter not in ("head", "combined"):
            return None
        raise EngineConfigError(
            f"{checkpoint.name} runs with torch on a CPU, where no draft head can: it needs the"
            " native kernels or a GPU",
            "drafter" if asked is None else "draft_head",
        )
    progress(f"loading the draft head {folder.name}", None)
    head = load_head(folder, model.shape)
    shape = model_shape(head.config)._replace(vocab=len(head.tokens), context=model.shape.context)
    rotary, ends = rotary_of(head.config), special_tokens(checkpoint, model.shape.vocab)
    if isinstance(model, LlamaModel):
        return TorchHead(model, head, shape, rotary, ends=ends)
    try:
        return NativeHead(
            model,
            head,
            shape,
            rotary,
            matrices="float32" if model.wide_cache else "int8",
            ends=ends,
        )
    except NoKernelsError as error:
        raise EngineConfigError(f"{head.name}: {error}", "draft_head") from error


def special_tokens(checkpoint: Checkpoint, vocab: int) -> frozenset[int]:
    """Never drafted: the end of a text, control tokens, tokens without an embedding."""
    unknown = (id for id in checkpoint.tokenizer.get_vocab().values() if id >= vocab)
    return checkpoint.special_token_ids | checkpoint.eos_token_ids | frozenset(unknown)


def _kernels(model: LlamaModel | NativeModel, place: _Place) -> str:
    """As `Parts.kernels`."""
    if isinstance(model, NativeModel):
        return f"native ({model.pool.library.isa})"
    if place.device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(place.device)})"
    return "torch"


def _longest(config: EngineConfig, model: PretrainedConfig) -> int:
    """Longest prompt + completion by configuration and training."""
    trained = model.max_position_embeddings
    asked = config.context_length
    if asked is not None and asked > trained:
        raise EngineConfigError(
            f"context_length {asked} is more than the model was trained for ({trained})",
            "context_length",
        )
    return asked or trained
