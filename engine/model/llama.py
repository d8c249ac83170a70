"""Llama-family decoder over weights that transformers knows by name. One step = one forward of many
rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F

from engine.model.attention import Attention, Rows
from engine.model.linear import Linear, RowBand

if TYPE_CHECKING:
    from engine.model.kv_cache import KVCache


class ModelShape(NamedTuple):
    """The numbers that decide memory and compute, from a transformers configuration."""

    vocab: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    rms_eps: float
    context: int


class ModelInput(NamedTuple):
    """One step's rows, all sequences one after another."""

    tokens: torch.Tensor  # [rows] int64
    positions: torch.Tensor  # [rows] int64
    slots: torch.Tensor  # [rows] int64, where their keys and values go
    groups: list[Rows]
    logits_for: torch.Tensor  # [sampled rows] int64, the rows whose logits are wanted


class LlamaModel:
    """Weights and the forward pass. Holds no per-sequence state; writes to the KV cache it is
    given.
    """

    def __init__(
        self,
        shape: ModelShape,
        tensors: dict[str, torch.Tensor],
        *,
        inverse_frequencies: torch.Tensor,
        rope_scale: float,
        exact: bool,
    ) -> None:
        """`tensors` by their Hugging Face names, in the dtype to compute in.

        `inverse_frequencies` [head_dim / 2] float32 and `rope_scale` come from transformers' rotary
        embedding of the same configuration. Raises KeyError where a weight is missing.
        """
        self.shape = shape
        self.embedding = tensors["model.embed_tokens.weight"]
        self.dtype = self.embedding.dtype
        self.device = self.embedding.device
        self._rope = _rope_table(shape.context, inverse_frequencies, rope_scale, self.dtype)
        self._attention = Attention(
            heads=shape.heads, kv_heads=shape.kv_heads, head_dim=shape.head_dim, exact=exact
        )
        bands: dict[torch.Size, RowBand] | None = {} if exact else None
        self._layers = [
            _Layer(shape, tensors, f"model.layers.{i}.", bands) for i in range(shape.layers)
        ]
        self._norm = tensors["model.norm.weight"]
        self._head = Linear(tensors.get("lm_head.weight", self.embedding), bands=bands)

    @property
    def groups(self) -> int:
        """Query heads per key-value head, the factor by which attention masks repeat their rows."""
        return self._attention.groups

    @torch.inference_mode()
    def forward(self, step: ModelInput, cache: KVCache) -> torch.Tensor:
        """Logits [sampled rows, vocab] in the model's dtype. Mutates `cache` at `step.slots`."""
        x = F.embedding(step.tokens, self.embedding)
        cos, sin = self._rope[0][step.positions], self._rope[1][step.positions]
        for number, layer in enumerate(self._layers):
            x = layer(x, cos, sin, step, cache, number, self._attention)
        x = x[step.logits_for]
        return self._head(rms_norm(x, self._norm, self.shape.rms_eps))


class _Layer:
    def __init__(
        self,
        shape: ModelShape,
        tensors: dict[str, torch.Tensor],
        prefix: str,
        bands: dict[torch.Size, RowBand] | None,
    ) -> None:
        def fused(*names: str) -> Linear:
            weight = torch.cat([tensors[f"{prefix}{name}.weight"] for name in names])
            biases = [tensors.get(f"{prefix}{name}.bias") for name in names]
            bias = None if biases[0] is None else torch.cat([b for b in biases if b is not None])
            return Linear(weight, bias, bands=bands)

        self._eps = shape.rms_eps
        self._q_size = shape.heads * shape.head_dim
        self._rotated = (shape.heads + shape.kv_heads, shape.head_dim)
        self._intermediate = shape.intermediate
        self._input_norm = tensors[f"{prefix}input_layernorm.weight"]
        self._qkv = fused("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
        self._out = fused("self_attn.o_proj")
        self._mlp_norm = tensors[f"{prefix}post_attention_layernorm.weight"]
        self._gate_up = fused("mlp.gate_proj", "mlp.up_proj")
        self._down = fused("mlp.down_proj")

    def __call__(
        self,
        x: torch.Tensor,  # [rows, hidden]
        cos: torch.Tensor,  # [rows, 1, head_dim]
        sin: torch.Tensor,  # [rows, 1, head_dim]
        step: ModelInput,
        cache: KVCache,
        number: int,
        attention: Attention,
    ) -> torch.Tensor:
        heads, head_dim = self._rotated
        qkv = self._qkv(rms_norm(x, self._input_norm, self._eps))
        qk = qkv[:, : heads * head_dim].view(-1, heads, head_dim)
        rotate(qk, cos, sin)
        cache.write(number, step.slots, qkv[:, self._q_size :])
        x = x + self._out(attention(qkv[:, : self._q_size], cache, number, step.groups))
        gate_up = self._gate_up(rms_norm(x, self._mlp_norm, self._eps))
        gate, up = gate_up.split(self._intermediate, dim=1)
        return x + self._down(F.silu(gate) * up)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """x / sqrt(mean(x²) + eps) * weight over the last dimension (Zhang and Sennrich 2019). [rows,
    n].
    """
    return F.rms_norm(x, (x.shape[-1],), weight, eps)


def rotate(qk: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> None:
    """Rotary position embedding in place (Su et al. 2021, halves convention). [rows, heads,
    head_dim].
    """
    half = qk.shape[2] // 2
    turned = torch.cat((-qk[..., half:], qk[..., :half]), dim=-1).mul_(sin)
    qk.mul_(cos).add_(turned)


def _rope_table(
    context: int, inverse_frequencies: torch.Tensor, scale: float, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin [context, 1, head_dim] for every position, computed in float32."""
    angles = torch.outer(torch.arange(context, dtype=torch.float32), inverse_frequencies)
    angles = torch.cat((angles, angles), dim=1).unsqueeze(1)
    return (angles.cos() * scale).to(dtype), (angles.sin() * scale).to(dtype)
