"""The target as the head's training sees it: features, distributions and embeddings, in torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM

from engine.loading.parts import model_shape
from engine.training.head import HeadShape

if TYPE_CHECKING:
    from engine.loading.checkpoint import Checkpoint
    from engine.training.config import TrainingConfig


class Reading(NamedTuple):
    features: torch.Tensor  # [batch, rows, layers read * hidden]
    states: torch.Tensor  # [batch, rows, hidden], after the last norm


class Target:
    """Frozen weights; nothing here needs gradients."""

    def __init__(
        self, checkpoint: Checkpoint, layers: tuple[int, ...], *, dtype: torch.dtype, device: str
    ) -> None:
        """`layers`: those whose inputs are read; their number stands for the last one's output."""
        model: Any = AutoModelForCausalLM.from_pretrained(checkpoint.folder, dtype=dtype)
        self._model = model.to(device).eval().requires_grad_(False)
        self.shape = model_shape(checkpoint.config)
        self.layers = layers
        self.embedding: torch.Tensor = self._model.get_input_embeddings().weight
        self._head: torch.Tensor = self._model.get_output_embeddings().weight
        self.rope_theta = float(checkpoint.config.rope_parameters["rope_theta"])
        modules = [*self._model.model.layers, self._model.model.norm]
        self._seen: dict[int, torch.Tensor] = {}
        for layer in layers:
            modules[layer].register_forward_pre_hook(self._keep(layer), with_kwargs=True)

    def _keep(self, layer: int) -> Any:
        def hook(_: Any, inputs: tuple[torch.Tensor, ...], named: dict[str, Any]) -> None:
            self._seen[layer] = inputs[0] if inputs else named["hidden_states"]

        return hook

    @torch.no_grad()
    def read(self, tokens: torch.Tensor, visible: torch.Tensor) -> Reading:
        """tokens [batch, rows]; visible [batch, rows, rows] bool."""
        states = self._model.model(
            input_ids=tokens, attention_mask=visible[:, None], use_cache=False
        ).last_hidden_state
        return Reading(torch.cat([self._seen[layer] for layer in self.layers], dim=-1), states)

    @torch.no_grad()
    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """[..., hidden] -> [..., vocab], float32."""
        return (states @ self._head.T).float()

    def head_shape(self, config: TrainingConfig) -> HeadShape:
        shape = self.shape
        return HeadShape(
            hidden=shape.hidden,
            intermediate=config.intermediate_size or shape.intermediate,
            heads=shape.heads,
            kv_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            features=len(self.layers),
            known=config.draft_vocabulary,
            rms_eps=shape.rms_eps,
            rope_theta=self.rope_theta,
        )
