"""Causal attention of new rows over paged keys and values, for many sequences in one call.

Exactness: a row's result must not depend on how many rows or how much padding stand beside it. The
products inside attention choose their kernel by the number of rows, as those in linear.py do, so in
exact mode they are always made with EXACT_ROWS rows. Padding of the context is harmless, measured
on x86, in bfloat16 with `scaled_dot_product_attention` over whole blocks of 16 tokens; elsewhere
`blockwise`, whose sums have one fixed shape and are added in one fixed order, where a masked block
adds exact zeros.

Grouped-query attention is folded: the query heads that share a key-value head become extra rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.model.kv_cache import KVCache

EXACT_BLOCK = 32
"""Tokens per partial sum in `blockwise`."""
EXACT_ROWS = 16
"""Rows of every product in exact mode: a decoding step of most models fits into one tile, and the
kernel never sees enough rows to lay keys out differently (which it decides by the whole batch).
"""


class Rows(NamedTuple):
    """A group of sequences with about equally many new rows, padded to a rectangle.

    `pick` [sequences, width] int64: which of the step's rows; padding repeats the first row.
    `blocks` [sequences, n] int64 block numbers, padded with block 0; `run` see KVCache.read.
    `mask` [sequences, 1, groups * width, n * block_size]: 0 where a row may look, -inf elsewhere.
    `back` [rows of the group] int64: where its rows lie in the flattened rectangle.
    `target` [rows of the group] int64: their places among the step's rows.
    `dense`: the group is the whole step, in order and without padding; nothing needs moving.
    """

    pick: torch.Tensor
    blocks: torch.Tensor
    run: tuple[int, int] | None
    mask: torch.Tensor
    back: torch.Tensor
    target: torch.Tensor
    dense: bool


class Attention:
    """Shape and dtype of one model's attention; `exact` chooses the row-invariant way."""

    def __init__(self, *, heads: int, kv_heads: int, head_dim: int, exact: bool) -> None:
        self.heads = heads
        self.kv_heads = kv_heads
        self.groups = heads // kv_heads
        self.head_dim = head_dim
        self._exact = exact

    def __call__(
        self, q: torch.Tensor, cache: KVCache, layer: int, groups: list[Rows]
    ) -> torch.Tensor:
        """q [rows, heads * head_dim] -> [rows, heads * head_dim]. The rows' own keys are already
        written.
        """
        out = None
        for rows in groups:
            k, v = cache.read(layer, rows.blocks, rows.run)
            sequences, width = rows.pick.shape
            folded = (
                (q if rows.dense else q[rows.pick.view(-1)])
                .view(sequences, width, self.kv_heads, self.groups, self.head_dim)
                .permute(0, 2, 3, 1, 4)
                .reshape(sequences, self.kv_heads, self.groups * width, self.head_dim)
            )
            o = self._attend(folded, k, v, rows.mask)
            flat = (
                o.view(sequences, self.kv_heads, self.groups, width, self.head_dim)
                .permute(0, 3, 1, 2, 4)
                .reshape(sequences * width, self.heads * self.head_dim)
            )
            if rows.dense:
                return flat
            if out is None:
                out = q.new_empty(q.shape[0], self.heads * self.head_dim)
            out[rows.target] = flat[rows.back]
        assert out is not None, "a step has at least one group"
        return out

    def _attend(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        if not self._exact:
            return flash(q, k, v, mask)
        if q.dtype is torch.bfloat16:
            return in_tiles(flash, q, k, v, mask, share=True)
        return in_tiles(blockwise, q, k, v, mask, share=False)


def in_tiles(
    kernel: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
    q: torch.Tensor,  # [sequences, kv_heads, rows, head_dim]
    k: torch.Tensor,  # [sequences, kv_heads, tokens, head_dim]
    v: torch.Tensor,  # [sequences, kv_heads, tokens, head_dim]
    mask: torch.Tensor,  # [sequences, 1, rows, tokens], additive
    *,
    share: bool,
) -> torch.Tensor:
    """`kernel` over tiles of EXACT_ROWS rows, the last one padded. [as q].

    `share`: the kernel reads expanded keys without copying them, so the tiles of a single sequence
    may go through it side by side.
    """
    sequences, heads, rows, head_dim = q.shape
    padding = -rows % EXACT_ROWS
    if padding:
        q = F.pad(q, (0, 0, 0, padding))
        mask = F.pad(mask, (0, 0, 0, padding))
    tiles = (rows + padding) // EXACT_ROWS
    if tiles == 1:
        return kernel(q, k, v, mask)[:, :, :rows]
    if share and sequences == 1:
        o = kernel(
            q.view(heads, tiles, EXACT_ROWS, head_dim).transpose(0, 1),
            k.expand(tiles, -1, -1, -1),
            v.expand(tiles, -1, -1, -1),
            mask.view(tiles, 1, EXACT_ROWS, -1),
        )
        return o.transpose(0, 1).reshape(1, heads, rows + padding, head_dim)[:, :, :rows]
    parts = [
        kernel(one, k, v, seen)
        for one, seen in zip(q.split(EXACT_ROWS, 2), mask.split(EXACT_ROWS, 2), strict=True)
    ]
    return torch.cat(parts, 2)[:, :, :rows]


def flash(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """PyTorch's fused attention. Shapes as in `blockwise`."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def blockwise(
    q: torch.Tensor,  # [sequences, kv_heads, rows, head_dim]
    k: torch.Tensor,  # [sequences, kv_heads, tokens, head_dim]
    v: torch.Tensor,  # [sequences, kv_heads, tokens, head_dim]
    mask: torch.Tensor,  # [sequences, 1, rows, tokens], additive
) -> torch.Tensor:
    """Softmax attention as sums over blocks of EXACT_BLOCK tokens, added from left to right."""
    tokens = k.shape[2]
    padding = -tokens % EXACT_BLOCK
    if padding:
        k = F.pad(k, (0, 0, 0, padding))
        v = F.pad(v, (0, 0, 0, padding))
        mask = F.pad(mask, (0, padding), value=float("-inf"))
    scores = torch.matmul(q, k.transpose(2, 3)).float() * q.shape[3] ** -0.5 + mask
    weights = torch.exp(scores - scores.amax(-1, keepdim=True))
    sequences, heads, rows, tokens = weights.shape
    blocks = tokens // EXACT_BLOCK
    weights = weights.view(sequences, heads, rows, blocks, EXACT_BLOCK).transpose(2, 3)
    partial = torch.matmul(
        weights.to(v.dtype), v.reshape(sequences, heads, blocks, EXACT_BLOCK, v.shape[3])
    ).float()  # [sequences, heads, blocks, rows, head_dim]
    mass = weights.sum(-1, keepdim=True)  # [sequences, heads, blocks, rows, 1]
    total, norm = partial[:, :, 0], mass[:, :, 0]
    for block in range(1, blocks):
        total = total + partial[:, :, block]
        norm = norm + mass[:, :, block]
    return (total / norm).to(q.dtype)
