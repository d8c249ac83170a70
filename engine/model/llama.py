"""Llama-family decoder over weights that transformers knows by name. One step = one forward of many
rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F

from engine.model.attention import Attention, Rows, small_products
from engine.model.invariance import Findings, common_sizes, tiles
from engine.model.linear import Linear

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.model.invariance import RowFunction
    from engine.model.kv_cache import KVCache

    Attend: TypeAlias = Callable[[torch.Tensor, int], torch.Tensor]
    """(q [rows, heads * head_dim], layer) -> as q, over keys and values already written."""
    Take: TypeAlias = Callable[[int, torch.Tensor], None]


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
        progress: Callable[[str, float | None], None],
        device: torch.device | None = None,
    ) -> None:
        """`tensors` by their Hugging Face names, in the dtype to compute in; they are moved to
        `device` one by one (None: they stay where they are).

        `inverse_frequencies` [head_dim / 2] float32 and `rope_scale` come from transformers' rotary
        embedding of the same configuration. `exact` measures what this machine's libraries keep to,
        if nobody has before. Raises KeyError where a weight is missing, EngineError where exact
        mode is not possible.
        """
        self.shape = shape
        self.embedding = tensors["model.embed_tokens.weight"].to(device)
        self.dtype = self.embedding.dtype
        self.device = self.embedding.device
        self._rope = [
            table.to(self.device)
            for table in rope_table(shape.context, inverse_frequencies, rope_scale, self.dtype)
        ]
        self._layers = [
            _Layer(shape, tensors, f"model.layers.{i}.", self.device) for i in range(shape.layers)
        ]
        self._norm = tensors["model.norm.weight"].to(device)
        self._head = Linear(tensors.get("lm_head.weight", self.embedding).to(device))
        self._sizes: tuple[int, ...] | None = None
        """Numbers of rows to compute in; None: in as many as there are."""
        product = None
        if exact:
            findings = Findings(self.device)
            self._sizes = common_sizes(
                self._row_functions(),
                dtype=self.dtype,
                device=self.device,
                findings=findings,
                progress=progress,
            )
            # On GPUs attention is a kernel of our own (kernels/cuda), exact by its code.
            if self.device.type == "cpu":
                product = small_products(shape.head_dim, self.device, findings)
        self._attention = Attention(
            heads=shape.heads, kv_heads=shape.kv_heads, head_dim=shape.head_dim, product=product
        )

    @property
    def groups(self) -> int:
        """Query heads per key-value head, the factor by which attention masks repeat their rows."""
        return self._attention.groups

    @property
    def row_sizes(self) -> tuple[int, ...] | None:
        """In exact mode the numbers of rows it computes in, growing; None: in as many as given."""
        return self._sizes

    @torch.inference_mode()
    def forward(self, step: ModelInput, cache: KVCache) -> torch.Tensor:
        """Logits [sampled rows, vocab] in the model's dtype. Mutates `cache` at `step.slots`."""

        def attend(q: torch.Tensor, layer: int) -> torch.Tensor:
            return self._attention(q, cache, layer, step.groups)

        x = self.hidden(step.tokens, step.positions, step.slots, cache, attend)
        return self.logits(x.index_select(0, step.logits_for))

    def hidden(
        self,
        tokens: torch.Tensor,  # [rows] int64
        positions: torch.Tensor,  # [rows] int64
        slots: torch.Tensor,  # [rows] int64
        cache: KVCache,
        attend: Attend,
        take: Take | None = None,
    ) -> torch.Tensor:
        """The last layer's output [rows, hidden]. Mutates `cache` at `slots`.

        `take` is shown the rows [rows, hidden] as they enter each layer, by its number, and as they
        leave the last one, by the number of layers.

        Nothing here waits for a device or depends on values, so that it can be recorded as a graph.
        """
        x = F.embedding(tokens, self.embedding)
        cos, sin = (table.index_select(0, positions) for table in self._rope)
        for number, layer in enumerate(self._layers):
            if take is not None:
                take(number, x)
            qkv = self._by_rows(layer.before, x, cos, sin)
            q, kv = qkv.split((layer.q_size, qkv.shape[1] - layer.q_size), 1)
            cache.write(number, slots, kv)
            x = self._by_rows(layer.after, x, attend(q, number))
        if take is not None:
            take(len(self._layers), x)
        return x

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """[rows, vocab] of `hidden`'s rows, in the model's dtype."""
        return self._by_rows(self._logits, x)

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        return self._head(rms_norm(x, self._norm, self.shape.rms_eps))

    def _by_rows(
        self, function: Callable[..., torch.Tensor], *inputs: torch.Tensor
    ) -> torch.Tensor:
        """`function` of `inputs` [rows, …], in exact mode in tiles of the sizes measured."""
        rows = inputs[0].shape[0]
        if self._sizes is None or rows == 0:
            return function(*inputs)
        parts: list[torch.Tensor] = []
        for start, size in tiles(rows, self._sizes):
            there = min(size, rows - start)
            cut = [tensor.narrow(0, start, there) for tensor in inputs]
            if there < size:
                cut = [F.pad(t, [0, 0] * (t.dim() - 1) + [0, size - there]) for t in cut]
            parts.append(function(*cut).narrow(0, 0, there))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @torch.inference_mode()
    def _row_functions(self) -> dict[str, tuple[RowFunction, int]]:
        """Everything in a step whose bits are a library's choice, by name, with its input's width.

        What is left is single products and sums of two numbers, which have one result.
        """
        shape, functions = self.shape, {}
        for linear in [self._head, *(one for layer in self._layers for one in layer.products)]:
            functions[linear.name] = (linear, linear.in_features)
        functions[f"norm {shape.hidden}"] = (
            lambda x: rms_norm(x, self._norm, shape.rms_eps),
            shape.hidden,
        )
        functions[f"gate {shape.intermediate}"] = (gated, 2 * shape.intermediate)
        return functions


class _Layer:
    def __init__(
        self,
        shape: ModelShape,
        tensors: dict[str, torch.Tensor],
        prefix: str,
        device: torch.device,
    ) -> None:
        def fused(*names: str) -> Linear:
            weight = torch.cat([tensors[f"{prefix}{name}.weight"].to(device) for name in names])
            biases = [tensors.get(f"{prefix}{name}.bias") for name in names]
            there = [bias.to(device) for bias in biases if bias is not None]
            return Linear(weight, torch.cat(there) if there else None)

        self._eps = shape.rms_eps
        self.q_size = shape.heads * shape.head_dim
        self._rotated = (shape.heads + shape.kv_heads, shape.head_dim)
        self._input_norm = tensors[f"{prefix}input_layernorm.weight"].to(device)
        self._qkv = fused("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
        self._out = fused("self_attn.o_proj")
        self._mlp_norm = tensors[f"{prefix}post_attention_layernorm.weight"].to(device)
        self._gate_up = fused("mlp.gate_proj", "mlp.up_proj")
        self._down = fused("mlp.down_proj")

        self.products = (self._qkv, self._out, self._gate_up, self._down)

    def before(
        self,
        x: torch.Tensor,  # [rows, hidden]
        cos: torch.Tensor,  # [rows, 1, head_dim]
        sin: torch.Tensor,  # [rows, 1, head_dim]
    ) -> torch.Tensor:
        """Queries, keys and values side by side, rotated. [rows, (heads + 2 kv_heads) * head_dim].

        What a row needs before it can attend.
        """
        heads, head_dim = self._rotated
        qkv = self._qkv(rms_norm(x, self._input_norm, self._eps))
        rotate(qkv.narrow(1, 0, heads * head_dim).view(-1, heads, head_dim), cos, sin)
        return qkv

    def after(
        self,
        x: torch.Tensor,  # [rows, hidden]
        attended: torch.Tensor,  # [rows, heads * head_dim]
    ) -> torch.Tensor:
        """The layer's output [rows, hidden], from its input and what the rows attended to."""
        x = x + self._out(attended)
        gate_up = self._gate_up(rms_norm(x, self._mlp_norm, self._eps))
        return x + self._down(gated(gate_up))


def gated(gate_up: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up (Shazeer 2020). [rows, 2 n] -> [rows, n]."""
    gate, up = gate_up.chunk(2, dim=1)
    return F.silu(gate) * up


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """x / sqrt(mean(x²) + eps) * weight over the last dimension (Zhang and Sennrich 2019). [rows,
    n].
    """
    return F.rms_norm(x, (x.shape[-1],), weight, eps)


def rotate(qk: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> None:
    """Rotary position embedding in place (Su et al. 2021, halves convention). [rows, heads,
    head_dim].
    """
    first, second = qk.split(qk.shape[2] // 2, -1)
    turned = torch.cat((-second, first), dim=-1).mul_(sin)
    qk.mul_(cos).add_(turned)


def rope_table(
    context: int, inverse_frequencies: torch.Tensor, scale: float, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin [context, 1, head_dim] for every position, computed in float32."""
    angles = torch.outer(torch.arange(context, dtype=torch.float32), inverse_frequencies)
    angles = torch.cat((angles, angles), dim=1).unsqueeze(1)
    return (angles.cos() * scale).to(dtype), (angles.sin() * scale).to(dtype)
