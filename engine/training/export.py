"""Stage "export": the head in the published layout; and the way back, for going on from one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import torch
from safetensors.torch import save_file

from engine.loading.head import ARCHITECTURE
from engine.loading.parts import model_shape
from engine.training.head import HeadShape, TrainableHead, load_weights
from engine.training.vocabulary import tables

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from engine.loading.head import DraftHead
    from engine.training.target import Target


def export(
    head: TrainableHead, tokens: NDArray[Any], target: Target, context: int, folder: Path
) -> None:
    """Write model.safetensors (bfloat16) and config.json, as engine/loading/head.py reads them.

    `tokens` [known]: the target's id of each of the head's own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: weight.detach().to("cpu", torch.bfloat16).contiguous()
        for name, weight in head.state_dict().items()
    }
    save_file(tensors | tables(tokens, target.shape.vocab), folder / "model.safetensors")
    shape = head.shape
    settings = {
        "architectures": [ARCHITECTURE],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": 1,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "rms_norm_eps": shape.rms_eps,
        "rope_theta": shape.rope_theta,
        "vocab_size": target.shape.vocab,
        "draft_vocab_size": shape.known,
        "hidden_act": "silu",
        "max_position_embeddings": context,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
        "eagle_config": {
            "eagle_aux_hidden_state_layer_ids": list(target.layers),
            "use_aux_hidden_state": True,
        },
    }
    written = msgspec.json.format(msgspec.json.encode(settings))
    (folder / "config.json").write_bytes(written + b"\n")


def trainable(published: DraftHead) -> TrainableHead:
    """The same head as torch modules, in float32."""
    shape = model_shape(published.config)
    head = TrainableHead(
        HeadShape(
            hidden=shape.hidden,
            intermediate=shape.intermediate,
            heads=shape.heads,
            kv_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            features=len(published.feature_layers),
            known=len(published.tokens),
            rms_eps=shape.rms_eps,
            rope_theta=float(published.config.rope_parameters["rope_theta"]),
        )
    )
    load_weights(head, published.tensors)
    return head
