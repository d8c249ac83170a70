"""Causal attention of new rows over paged keys and values, for many sequences in one call.

Exactness: a row's result must not depend on how many rows or how much padding stand beside it.
PyTorch's fused attention does not keep that (in bfloat16 on Zen 4 it cuts the context by the number
of rows). So exact mode has a form of its own, `blockwise`: always float32, always products of
EXACT_ROWS rows with EXACT_BLOCK tokens, and every sum beyond that written out here, as halvings
whose shape depends on nothing; a masked block adds exact zeros. The small products are the
library's where 8,192 rows came out the same in every company (`small_products`), else sums of our
own, which are slower.

Grouped-query attention is folded: the query heads that share a key-value head become extra rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F

from engine.model.invariance import heavy_tailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.model.invariance import Findings
    from engine.model.kv_cache import KVCache

    Product: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

EXACT_BLOCK = 32
"""Tokens per partial sum in `blockwise`."""
EXACT_ROWS = 16
"""Rows of every product in exact mode: a decoding step of most models fits into one tile."""
BATCHES = (1, 2, 3, 5, 9, 16, 27, 64, 144, 512)
"""Numbers of small products in one call that are compared; the last one is how many there are."""


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
    """Shape of one model's attention; with `product` the row-invariant way."""

    def __init__(
        self, *, heads: int, kv_heads: int, head_dim: int, product: Product | None
    ) -> None:
        """`product`: what `small_products` chose; None: PyTorch's own attention, not exact."""
        self.heads = heads
        self.kv_heads = kv_heads
        self.groups = heads // kv_heads
        self.head_dim = head_dim
        self._product = product

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
        if self._product is None:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return blockwise(q, k, v, mask, self._product)


def blockwise(
    q: torch.Tensor,  # [sequences, kv_heads, rows, head_dim]
    k: torch.Tensor,  # [sequences, kv_heads, tokens, head_dim]
    v: torch.Tensor,  # [sequences, kv_heads, tokens, head_dim]
    mask: torch.Tensor,  # [sequences, 1, rows, tokens], additive
    product: Product,
) -> torch.Tensor:
    """Softmax attention over tiles of EXACT_ROWS rows and blocks of EXACT_BLOCK tokens. [as q]."""
    rows, tokens = q.shape[2], k.shape[2]
    missing, short = -rows % EXACT_ROWS, -tokens % EXACT_BLOCK
    queries = F.pad(q.float() * q.shape[3] ** -0.5, (0, 0, 0, missing))
    seen = F.pad(F.pad(mask.float(), (0, short), value=float("-inf")), (0, 0, 0, missing))
    keys, values = (
        F.pad(t.float(), (0, 0, 0, short))
        .contiguous()
        .view(*t.shape[:2], -1, EXACT_BLOCK, t.shape[3])
        for t in (k, v)
    )
    parts = [
        _tile(one, keys, values, among, product)
        for one, among in zip(queries.split(EXACT_ROWS, 2), seen.split(EXACT_ROWS, 2), strict=True)
    ]
    out = parts[0] if len(parts) == 1 else torch.cat(parts, 2)
    return out.narrow(2, 0, rows).to(q.dtype)


def _tile(
    q: torch.Tensor,  # [sequences, kv_heads, EXACT_ROWS, head_dim], scaled
    k: torch.Tensor,  # [sequences, kv_heads, blocks, EXACT_BLOCK, head_dim]
    v: torch.Tensor,  # [sequences, kv_heads, blocks, EXACT_BLOCK, head_dim]
    mask: torch.Tensor,  # [sequences, 1, EXACT_ROWS, blocks * EXACT_BLOCK]
    product: Product,
) -> torch.Tensor:
    """[as q]; all float32."""
    sequences, heads, blocks, _, head_dim = k.shape
    every = (sequences, heads, blocks, EXACT_ROWS)
    queries = q.unsqueeze(2).expand(*every, head_dim).reshape(-1, EXACT_ROWS, head_dim)
    scores = product(queries, k.view(-1, EXACT_BLOCK, head_dim).transpose(1, 2))
    among = mask.view(sequences, 1, EXACT_ROWS, blocks, EXACT_BLOCK).transpose(2, 3)
    scores = scores.view(*every, EXACT_BLOCK) + among
    weights = torch.exp(scores - scores.amax((2, 4), keepdim=True))
    partial = product(weights.view(-1, EXACT_ROWS, EXACT_BLOCK), v.view(-1, EXACT_BLOCK, head_dim))
    total = halved(partial.view(*every, head_dim), 2)
    return total / halved(halved(weights, 4).unsqueeze(4), 2)


def halved(x: torch.Tensor, dim: int) -> torch.Tensor:
    """The sum along `dim`, one half added to the other until one is left, which goes.

    The next power of two is filled up with zeros, so that more of them change nothing: x + 0 is x.
    """
    length = x.shape[dim]
    full = 1 << (length - 1).bit_length()
    if full > length:
        padding = [0, 0] * (x.dim() - 1 - dim) + [0, full - length]
        x = F.pad(x, padding)
    while full > 1:
        full //= 2
        x = x.narrow(dim, 0, full) + x.narrow(dim, full, full)
    return x.squeeze(dim)


def summed(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a @ b from left to right, one product and one sum at a time: the same on every machine.

    a [batch, rows, inner], b [batch, inner, columns] -> [batch, rows, columns].
    """
    total = a[:, :, :1] * b[:, :1]
    for place in range(1, a.shape[2]):
        total = total + a[:, :, place : place + 1] * b[:, place : place + 1]
    return total


def small_products(head_dim: int, device: torch.device, findings: Findings) -> Product:
    """`torch.bmm` where it treats every small product of `blockwise` alike on this machine, else
    `summed`.
    """
    name = f"attention {head_dim} {device.type}"
    alike = findings.get(name, lambda: [int(_alike(torch.bmm, head_dim, device))])
    return torch.bmm if alike == [1] else summed


def _alike(product: Product, head_dim: int, device: torch.device) -> bool:
    """Whether rows come out bit for bit the same in any number of small products, in any place; and
    whether exp gives a number the same value wherever it stands.
    """
    generator = torch.Generator().manual_seed(0)
    count = BATCHES[-1]
    queries = heavy_tailed((count, EXACT_ROWS, head_dim), generator).to(device)
    keys = heavy_tailed((count, EXACT_BLOCK, head_dim), generator).to(device)
    values = heavy_tailed((count, EXACT_BLOCK, head_dim), generator).to(device)
    scores = product(queries, keys.transpose(1, 2))
    weights = torch.exp(scores - scores.amax(2, keepdim=True))
    sums = product(weights, values)
    for batch in BATCHES:
        order = torch.randperm(count, generator=generator).to(device)
        rows = torch.randperm(EXACT_ROWS, generator=generator).to(device)
        for chosen in order.split(batch):
            q, k, v = queries[chosen][:, rows], keys[chosen], values[chosen]
            again = product(q, k.transpose(1, 2))
            w = torch.exp(again - again.amax(2, keepdim=True))
            if not (
                torch.equal(again, scores[chosen][:, rows])
                and torch.equal(w, weights[chosen][:, rows])
                and torch.equal(product(w, v), sums[chosen][:, rows])
            ):
                return False
    return True
