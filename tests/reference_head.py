# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
"""An EAGLE-3 head in plain torch, written from its definition: whole sequences, no cache.

The row of position t joins the embedding of token t + 1 with the feature of position t and
foretells token t + 2; its rotary position is t. What it gives before the last norm is the feature
of the next row of a draft.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from collections.abc import Callable


class ReferenceHead:
    """All in float32."""

    def __init__(
        self,
        tensors: dict[str, torch.Tensor],
        embedding: torch.Tensor,
        *,
        heads: int,
        kv_heads: int,
        theta: float,
        eps: float,
    ) -> None:
        """`tensors` by their published names; `embedding` [vocab, hidden], the target's."""
        self.w = {name: t.float() for name, t in tensors.items() if name not in ("d2t", "t2d")}
        vocab = self.w["lm_head.weight"].shape[0]
        offsets = tensors.get("d2t", torch.zeros(vocab, dtype=torch.int64))
        self.tokens = torch.arange(vocab) + offsets
        self.embedding = self.w.get("embed_tokens.weight", embedding.float())
        self.heads, self.kv_heads = heads, kv_heads
        self.dim = self.w["midlayer.self_attn.q_proj.weight"].shape[0] // heads
        self.theta, self.eps = theta, eps

    def features(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        """[rows, hidden] from the inputs [rows, hidden] of the layers it reads."""
        return torch.cat([x.float() for x in inputs], dim=1) @ self.w["fc.weight"].T

    def rows(self, tokens: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """[rows, hidden] before the last norm. `tokens` [rows] follow the features' own."""
        count = len(tokens)
        pair = torch.cat(
            [
                self._norm(self.embedding[tokens], "midlayer.input_layernorm"),
                self._norm(features, "midlayer.hidden_norm"),
            ],
            dim=1,
        )

        def project(name: str, heads: int) -> torch.Tensor:
            y = pair @ self.w[f"midlayer.self_attn.{name}_proj.weight"].T
            return y.view(count, heads, self.dim).transpose(0, 1)

        q = self._turn(project("q", self.heads))
        k = self._turn(project("k", self.kv_heads))
        v = project("v", self.kv_heads)
        group = self.heads // self.kv_heads
        k, v = k.repeat_interleave(group, dim=0), v.repeat_interleave(group, dim=0)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        y = y.transpose(0, 1).reshape(count, -1)
        x = features + y @ self.w["midlayer.self_attn.o_proj.weight"].T
        y = self._norm(x, "midlayer.post_attention_layernorm")
        gate = F.silu(y @ self.w["midlayer.mlp.gate_proj.weight"].T)
        up = y @ self.w["midlayer.mlp.up_proj.weight"].T
        return x + (gate * up) @ self.w["midlayer.mlp.down_proj.weight"].T

    def logits(self, rows: torch.Tensor) -> torch.Tensor:
        """[rows, own vocabulary]; `self.tokens` names its tokens."""
        return self._norm(rows, "norm") @ self.w["lm_head.weight"].T

    def draft(
        self,
        tokens: list[int],
        features: torch.Tensor,
        length: int,
        choose: Callable[[torch.Tensor, int], int],
    ) -> tuple[list[int], list[float]]:
        """`length` tokens after `tokens`, whose features but the last token's are given; and the
        head's own probability of each. `choose(logits, place)` picks one of its own tokens.
        """
        drafted: list[int] = []
        chances: list[float] = []
        known = features[: len(tokens) - 1]
        for place in range(length):
            rows = self.rows(torch.tensor((tokens + drafted)[1:]), known)
            logits = self.logits(rows[-1:])[0]
            own = choose(logits, place)
            drafted.append(int(self.tokens[own]))
            chances.append(float(logits.softmax(0)[own]))
            known = torch.cat([known, rows[-1:]])
        return drafted, chances

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.w[f"{name}.weight"], self.eps)

    def _turn(self, x: torch.Tensor) -> torch.Tensor:
        """[heads, rows, dim] by each row's place, halves convention."""
        half = self.dim // 2
        frequencies = self.theta ** (-torch.arange(half).double() / half)
        angles = torch.outer(torch.arange(x.shape[1]).double(), frequencies)
        cos, sin = angles.cos().float(), angles.sin().float()
        a, b = x[..., :half], x[..., half:]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
