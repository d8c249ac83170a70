"""The draft head as torch modules that can be trained, and its training-time test.

EAGLE-3 (Li et al. 2025): in use, the head reads its own output from the second drafted token on; so
it is trained that way. Step i of the test starts from every row t of a text at once: it joins the
output of step i - 1 at t (of step 0: the target's feature) with the embedding of token t + 1 + i,
and foretells token t + 2 + i. What such a row may look at is what a draft begun at t would find in
its cache: the rows of step 0 up to t, and of the steps after only its own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator


class HeadShape(NamedTuple):
    """The target's own numbers, but for `features` (layers read), `intermediate` and `known`
    (tokens it can say).
    """

    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    features: int
    known: int
    rms_eps: float
    rope_theta: float


class _Attention(nn.Module):
    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self._shape = shape
        wide = shape.heads * shape.head_dim
        narrow = shape.kv_heads * shape.head_dim
        self.q_proj = nn.Linear(2 * shape.hidden, wide, bias=False)
        self.k_proj = nn.Linear(2 * shape.hidden, narrow, bias=False)
        self.v_proj = nn.Linear(2 * shape.hidden, narrow, bias=False)
        self.o_proj = nn.Linear(wide, shape.hidden, bias=False)

    def forward(
        self,
        x: torch.Tensor,  # [batch, rows, 2 hidden]
        ahead: int,
        visible: torch.Tensor,  # [batch, rows, rows] bool
        kept: list[tuple[torch.Tensor, torch.Tensor]],
    ) -> torch.Tensor:
        """[batch, rows, hidden]. `kept`: keys and values of the steps so far; this one's are added.
        `ahead`: by how many places a row's token is ahead of its place; its rotary position is.
        """
        shape = self._shape
        q = _turned(_split(self.q_proj(x), shape.heads), ahead, shape.rope_theta)
        k = _turned(_split(self.k_proj(x), shape.kv_heads), ahead, shape.rope_theta)
        v = _split(self.v_proj(x), shape.kv_heads)
        group = shape.heads // shape.kv_heads
        kept.append((k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)))
        return self.o_proj(unrolled_attention(q, kept, visible).transpose(1, 2).flatten(2))


def unrolled_attention(
    q: torch.Tensor,  # [batch, heads, rows, dim]
    kept: list[tuple[torch.Tensor, torch.Tensor]],  # keys and values as q, by step
    visible: torch.Tensor,  # [batch, rows, rows] bool
) -> torch.Tensor:
    """Each row over what is visible to it of the first step, and over itself in the others."""
    first, rest = kept[0], kept[1:]
    scale = 1 / math.sqrt(q.shape[-1])
    scores = (q @ first[0].transpose(2, 3)).masked_fill(~visible[:, None], -math.inf)
    own = [(q * k).sum(-1, keepdim=True) for k, _ in rest]
    weights = (torch.cat([scores, *own], dim=-1) * scale).float().softmax(-1).to(q.dtype)
    rows = q.shape[2]
    attended = weights[..., :rows] @ first[1]
    for step, (_, v) in enumerate(rest):
        attended = attended + weights[..., rows + step, None] * v
    return attended


class _Mlp(nn.Module):
    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden, shape.intermediate, bias=False)
        self.up_proj = nn.Linear(shape.hidden, shape.intermediate, bias=False)
        self.down_proj = nn.Linear(shape.intermediate, shape.hidden, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class _Layer(nn.Module):
    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(shape.hidden, shape.rms_eps)
        self.hidden_norm = nn.RMSNorm(shape.hidden, shape.rms_eps)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden, shape.rms_eps)
        self.self_attn = _Attention(shape)
        self.mlp = _Mlp(shape)


class TrainableHead(nn.Module):
    """Its parameters have the published names."""

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.shape = shape
        self.fc = nn.Linear(shape.features * shape.hidden, shape.hidden, bias=False)
        self.midlayer = _Layer(shape)
        self.norm = nn.RMSNorm(shape.hidden, shape.rms_eps)
        self.lm_head = nn.Linear(shape.hidden, shape.known, bias=False)

    def initialise(self, seed: int) -> None:
        """Weights that depend on the seed alone."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in self.parameters():
                if weight.dim() == 1:
                    weight.fill_(1.0)
                else:
                    drawn = torch.randn(weight.shape, generator=generator)
                    weight.copy_(drawn / math.sqrt(weight.shape[1]))

    def unroll(
        self,
        inputs: torch.Tensor,  # [batch, rows, features * hidden]
        tokens: torch.Tensor,  # [batch, rows] int64
        embedding: torch.Tensor,  # [vocab, hidden]
        visible: torch.Tensor,  # [batch, rows, rows] bool
        steps: int,
    ) -> Iterator[torch.Tensor]:
        """Logits [batch, rows, known] of each step. In the last i + 1 rows those of step i mean
        nothing: the token they would read is not there.
        """
        layer = self.midlayer
        state = self.fc(inputs)
        kept: list[tuple[torch.Tensor, torch.Tensor]] = []
        for step in range(steps):
            read = F.embedding(tokens.roll(-1 - step, dims=1), embedding).to(state.dtype)
            pair = torch.cat([layer.input_layernorm(read), layer.hidden_norm(state)], dim=-1)
            state = state + layer.self_attn(pair, step, visible, kept)
            state = state + layer.mlp(layer.post_attention_layernorm(state))
            yield self.lm_head(self.norm(state))


def visible_rows(owner: torch.Tensor) -> torch.Tensor:
    """Which rows each may look at: those of its own document up to itself. `owner` [batch, rows]
    as `documents.packed` gives it. [batch, rows, rows] bool.
    """
    document = owner.abs()
    same = document[:, :, None] == document[:, None, :]
    return same & torch.ones_like(same[0]).tril()


def _split(x: torch.Tensor, heads: int) -> torch.Tensor:
    """[batch, rows, heads * dim] -> [batch, heads, rows, dim]."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def _turned(x: torch.Tensor, ahead: int, theta: float) -> torch.Tensor:
    """Rotary embedding, halves convention (Su et al. 2021). [batch, heads, rows, dim]."""
    half = x.shape[-1] // 2
    # In double: a float32 angle of some thousand radians has lost three digits.
    places = torch.arange(x.shape[2], device=x.device, dtype=torch.float64) + ahead
    frequencies = theta ** (-torch.arange(half, device=x.device, dtype=torch.float64) / half)
    angles = torch.outer(places, frequencies)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def load_weights(head: TrainableHead, tensors: dict[str, torch.Tensor]) -> None:
    """`tensors` by their published names; vocabulary tables are not parameters."""
    names = cast("dict[str, torch.Tensor]", head.state_dict())
    head.load_state_dict({name: tensors[name].float() for name in names})
