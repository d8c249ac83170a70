"""Open an EAGLE-3 draft head in its published layout (`LlamaForCausalLMEagle3`).

Tensors: `fc`, one decoder layer as `midlayer`, `norm`, `lm_head`; for a head that knows fewer
tokens than its target `d2t` (a draft token's id plus this is the target's id). Embeddings are the
target's own unless `embed_tokens` is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec
import numpy as np
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig

from engine.loading.checkpoint import CheckpointError
from engine.loading.pull import EMBEDDED_MODEL

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from transformers import PretrainedConfig

    from engine.model.llama import ModelShape

ARCHITECTURE = "LlamaForCausalLMEagle3"
SHIPPED = {EMBEDDED_MODEL: Path(__file__).parents[1] / "heads" / EMBEDDED_MODEL}
"""Heads that come with Wetink, by the name of their target."""
EMBEDDING = "embed_tokens.weight"


@dataclass(frozen=True, kw_only=True)
class DraftHead:
    """A head that fits its target. Tensors by their published names, as they lie in the file."""

    name: str
    config: PretrainedConfig
    feature_layers: tuple[int, ...]
    """Target layers whose inputs it reads; the number of layers means the last one's output."""
    tensors: dict[str, torch.Tensor]
    tokens: NDArray[np.int32]
    """[its vocabulary] the target's id of each of its own."""


def load_head(folder: Path, target: ModelShape) -> DraftHead:
    """Raises `CheckpointError` where the folder holds no head or one for another target."""
    path = folder / "model.safetensors"
    if not path.is_file():
        raise _refusal(folder, "has no model.safetensors (pickle files are not opened)")
    settings = _settings(folder)
    config = _config(folder, target)
    layers = _feature_layers(folder, settings, target)
    tensors = _tensors(path)
    size = settings.get("draft_vocab_size") or config.vocab_size
    _check_shapes(folder, tensors, _expected(config, target, len(layers), size))
    return DraftHead(
        name=folder.resolve().name,
        config=config,
        feature_layers=layers,
        tensors=tensors,
        tokens=_tokens(folder, tensors, size, target.vocab),
    )


def _refusal(folder: Path, reason: str, code: str = "unsupported_checkpoint") -> CheckpointError:
    return CheckpointError(code, f"draft head {folder.name}: {reason}")


def _settings(folder: Path) -> dict[str, Any]:
    try:
        settings = msgspec.json.decode((folder / "config.json").read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.MsgspecError) as error:
        reason = f"config.json cannot be used: {error}"
        raise _refusal(folder, reason, "broken_checkpoint") from error
    architectures = settings.get("architectures") or []
    if architectures != [ARCHITECTURE]:
        named = ", ".join(map(str, architectures)) or "of unknown architecture"
        raise _refusal(folder, f"is {named}; supported: {ARCHITECTURE}", "unsupported_architecture")
    if settings.get("norm_before_residual"):
        raise _refusal(folder, "norms before the residual; supported: norm_before_residual false")
    return settings


def _config(folder: Path, target: ModelShape) -> PretrainedConfig:
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, OSError) as error:
        reason = f"config.json cannot be used: {error}"
        raise _refusal(folder, reason, "broken_checkpoint") from error
    if config.num_hidden_layers != 1:
        raise _refusal(folder, f"has {config.num_hidden_layers} layers; supported: 1")
    for what, its, targets in (
        ("a hidden size", config.hidden_size, target.hidden),
        ("a vocabulary", config.vocab_size, target.vocab),
    ):
        if its != targets:
            raise _refusal(folder, f"is for {what} of {its}; this target has {targets}")
    return config


def _feature_layers(folder: Path, settings: dict[str, Any], target: ModelShape) -> tuple[int, ...]:
    """As configured, else the three that heads are trained on by default (Li et al. 2025)."""
    eagle = settings.get("eagle_config") or {}
    named = eagle.get("eagle_aux_hidden_state_layer_ids")
    if named is None:
        named = [2, target.layers // 2, target.layers - 3]
    try:
        layers = msgspec.convert(named, tuple[int, ...])
    except msgspec.ValidationError as error:
        reason = f"eagle_aux_hidden_state_layer_ids: {error}"
        raise _refusal(folder, reason, "broken_checkpoint") from error
    outside = [layer for layer in layers if not 0 <= layer <= target.layers]
    if outside or not layers:
        raise _refusal(
            folder, f"reads layers {list(layers)}; this target has layers 0 … {target.layers - 1}"
        )
    return layers


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            names = cast("list[str]", file.keys())
            return {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise CheckpointError("broken_checkpoint", f"{path} cannot be read: {error}") from error


def _expected(
    config: PretrainedConfig, target: ModelShape, features: int, vocab: int
) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors that must be there, and of its own embedding if it is."""
    hidden, inner, heads = target.hidden, config.intermediate_size, config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    return {
        EMBEDDING: (target.vocab, hidden),
        "fc.weight": (hidden, features * hidden),
        "midlayer.hidden_norm.weight": (hidden,),
        "midlayer.input_layernorm.weight": (hidden,),
        "midlayer.post_attention_layernorm.weight": (hidden,),
        "midlayer.self_attn.q_proj.weight": (heads * dim, 2 * hidden),
        "midlayer.self_attn.k_proj.weight": (kv_heads * dim, 2 * hidden),
        "midlayer.self_attn.v_proj.weight": (kv_heads * dim, 2 * hidden),
        "midlayer.self_attn.o_proj.weight": (hidden, heads * dim),
        "midlayer.mlp.gate_proj.weight": (inner, hidden),
        "midlayer.mlp.up_proj.weight": (inner, hidden),
        "midlayer.mlp.down_proj.weight": (hidden, inner),
        "norm.weight": (hidden,),
        "lm_head.weight": (vocab, hidden),
    } | ({"d2t": (vocab,)} if vocab != target.vocab else {})


def _check_shapes(
    folder: Path, tensors: dict[str, torch.Tensor], expected: dict[str, tuple[int, ...]]
) -> None:
    missing = [name for name in expected if name not in tensors and name != EMBEDDING]
    if missing:
        raise _refusal(folder, f"misses {', '.join(missing)}", "broken_checkpoint")
    for name, shape in expected.items():
        found = tuple(tensors[name].shape) if name in tensors else shape
        if found != shape:
            reason = f"{name} is {list(found)}, by its configuration it must be {list(shape)}"
            raise _refusal(folder, reason, "broken_checkpoint")


def _tokens(
    folder: Path, tensors: dict[str, torch.Tensor], size: int, vocab: int
) -> NDArray[np.int32]:
    own = np.arange(size, dtype=np.int64)
    offsets = tensors.get("d2t")
    tokens = own if offsets is None else own + offsets.numpy().astype(np.int64)
    if tokens.min() < 0 or tokens.max() >= vocab or len(np.unique(tokens)) != size:
        reason = f"d2t does not name {size} different tokens of the target's {vocab}"
        raise _refusal(folder, reason, "broken_checkpoint")
    return tokens.astype(np.int32)
