"""An EAGLE-3 head in torch, beside a model whose steps torch computes.

As kernels/cpu/head.h has it: the row of token s joins its embedding with the feature of token
s - 1; its keys and values lie at place s of the sequence's own blocks, its rotary position is that
of the feature. Place 0 holds nothing and is never looked at. Every step of the target also writes
the head's keys and values of all its rows, so wherever the target's keys are valid the head's are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from engine.loading.head import EMBEDDING
from engine.model.kv_cache import KVCache
from engine.model.linear import Linear
from engine.model.llama import gated, rms_norm, rope_table, rotate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from engine.loading.head import DraftHead
    from engine.model.llama import LlamaModel, ModelShape
    from engine.model.packed import Rotary

LAYER = "midlayer."


class TorchHead:
    """Weights of a head, in its target's type and on its device. Holds no per-sequence state."""

    def __init__(
        self,
        target: LlamaModel,
        head: DraftHead,
        shape: ModelShape,
        rotary: Rotary,
        *,
        ends: frozenset[int],
    ) -> None:
        """`shape`: its own numbers, context as the target's. `ends`: tokens no draft goes on to."""
        device, self.dtype = target.device, target.dtype

        def weight(name: str) -> torch.Tensor:
            return head.tensors[f"{name}.weight"].to(device, self.dtype)

        def layer(*names: str) -> torch.Tensor:
            return torch.cat([weight(f"{LAYER}{name}") for name in names])

        self.shape, self.device = shape, device
        self.target_vocab = target.shape.vocab
        self.feature_layers = head.feature_layers
        self._embedding = target.embedding
        if EMBEDDING in head.tensors:
            self._embedding = head.tensors[EMBEDDING].to(device, self.dtype)
        attention = [f"self_attn.{name}_proj" for name in "qkv"]
        self._queries = shape.heads * shape.head_dim
        self._qkv = Linear(layer(*attention))
        self._kv = Linear(layer(*attention[1:]))
        self._out = Linear(layer("self_attn.o_proj"))
        self._gate_up = Linear(layer("mlp.gate_proj", "mlp.up_proj"))
        self._down = Linear(layer("mlp.down_proj"))
        self._fc, self._head = Linear(weight("fc")), Linear(weight("lm_head"))
        self._embedding_norm = weight(f"{LAYER}input_layernorm")
        self._feature_norm = weight(f"{LAYER}hidden_norm")
        self._mlp_norm = weight(f"{LAYER}post_attention_layernorm")
        self._norm = weight("norm")
        frequencies = torch.from_numpy(rotary.inverse_frequencies)
        tables = rope_table(shape.context, frequencies, rotary.scale, self.dtype)
        self._rope = [table.to(device) for table in tables]
        self.tokens = torch.from_numpy(head.tokens).long().to(device)
        """[its vocabulary] int64, the target's id of each of its own."""
        ending = torch.zeros(self.target_vocab, dtype=torch.bool)
        ending[[token for token in sorted(ends) if token < self.target_vocab]] = True
        self.ends = ending.to(device)
        """[the target's vocabulary] bool."""

    def bytes_per_token(self) -> int:
        """Of its cache: keys, values and the kept feature."""
        shape = self.shape
        keys = KVCache.bytes_per_token(1, shape.kv_heads, shape.head_dim, self.dtype)
        return keys + shape.hidden * self.dtype.itemsize

    def feature(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """[rows, hidden] from the inputs [rows, hidden] of `feature_layers`, in their order."""
        return self._fc(torch.cat(tuple(inputs), 1))

    def keys(
        self,
        tokens: torch.Tensor,  # [rows] int64
        features: torch.Tensor,  # [rows, hidden], of the tokens before
        positions: torch.Tensor,  # [rows] int64, of the features
    ) -> torch.Tensor:
        """Keys and values side by side, [rows, 2 * kv_heads * head_dim]."""
        kv = self._kv(self._pair(tokens, features))
        self._turn(kv, self.shape.kv_heads, positions)
        return kv

    def row(
        self,
        tokens: torch.Tensor,  # [rows] int64
        features: torch.Tensor,  # [rows, hidden], of the tokens before
        positions: torch.Tensor,  # [rows] int64, of the features
        attend: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        """What goes into `logits`, and is the feature of the next row of a draft. [rows, hidden].

        `attend`: as `q` [rows, heads * head_dim], given that and keys and values to be written.
        """
        shape = self.shape
        qkv = self._qkv(self._pair(tokens, features))
        self._turn(qkv, shape.heads + shape.kv_heads, positions)
        q, kv = qkv.split((self._queries, qkv.shape[1] - self._queries), 1)
        x = features + self._out(attend(q, kv))
        gate_up = self._gate_up(rms_norm(x, self._mlp_norm, shape.rms_eps))
        return x + self._down(gated(gate_up))

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """[rows, its vocabulary]."""
        return self._head(rms_norm(x, self._norm, self.shape.rms_eps))

    def _pair(self, tokens: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        eps = self.shape.rms_eps
        read = rms_norm(F.embedding(tokens, self._embedding), self._embedding_norm, eps)
        return torch.cat((read, rms_norm(features, self._feature_norm, eps)), 1)

    def _turn(self, rows: torch.Tensor, heads: int, positions: torch.Tensor) -> None:
        cos, sin = (table.index_select(0, positions) for table in self._rope)
        size = self.shape.head_dim
        rotate(rows.narrow(1, 0, heads * size).view(-1, heads, size), cos, sin)


class HeadCache:
    """What a head keeps of all sequences, in its target's blocks. Filled by the target's steps."""

    def __init__(self, head: TorchHead, *, num_blocks: int, block_size: int) -> None:
        shape, slots = head.shape, num_blocks * block_size
        self.head = head
        self.keys = KVCache(
            layers=1,
            num_blocks=num_blocks,
            block_size=block_size,
            kv_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            dtype=head.dtype,
            device=head.device,
        )
        self.nothing = slots
        """The slot of what comes before a text."""
        self.features = torch.zeros((slots + 1, shape.hidden), dtype=head.dtype, device=head.device)
        """[slots and one, hidden], by slot; the last one stays zero."""
        self._taken: dict[int, torch.Tensor] = {}

    def take(self, layer: int, x: torch.Tensor) -> None:
        """The target's rows [rows, hidden] as they enter `layer`; its number of layers: as they
        leave the last.
        """
        if layer in self.head.feature_layers:
            self._taken[layer] = x

    def follow(
        self,
        tokens: torch.Tensor,  # [rows] int64
        positions: torch.Tensor,  # [rows] int64
        slots: torch.Tensor,  # [rows] int64
        before: torch.Tensor,  # [rows] int64, the slots of the tokens before
    ) -> None:
        """Write features, keys and values of a step's rows, whose states have been taken."""
        head = self.head
        taken = [self._taken[layer] for layer in head.feature_layers]
        self._taken.clear()
        self.features.index_copy_(0, slots, head.feature(taken))
        features = self.features.index_select(0, before)
        kv = head.keys(tokens, features, (positions - 1).clamp(min=0))
        self.keys.write(0, slots, kv)
