"""What a step on a device needs beyond PyTorch's own products, behind one small interface.

Two make it: `Reference` in plain PyTorch, on any device, and the Triton kernels in cuda/. The first
says what is right; the second is what runs on a GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch

from engine.model.attention import blockwise
from engine.sampling.device_noise import scores

if TYPE_CHECKING:
    from engine.model.attention import Product
    from engine.model.llama import ModelShape


class Tiles(NamedTuple):
    """A step's rows for attention, cut into tiles of one sequence's consecutive rows.

    first, rows [tiles] int32: a tile's first row and how many; none of a tile that only fills up.
    table [tiles] int32: which row of `tables` its sequence has.
    visible [rows] int32: how many tokens of its sequence a row may look at; 0 for a row that only
    fills up, whose result means nothing.
    tables [sequences, n] int32: block numbers, padded with any.
    """

    first: torch.Tensor
    rows: torch.Tensor
    table: torch.Tensor
    visible: torch.Tensor
    tables: torch.Tensor


class DeviceKernels(Protocol):
    tile_rows: int
    """Most rows of a tile."""

    def attend(
        self, q: torch.Tensor, layer: torch.Tensor, tiles: Tiles, *, unseen: int = 0
    ) -> torch.Tensor:
        """Attention of q [rows, heads * head_dim] over one layer of a KVCache; as q.

        `unseen`: places at the start of every sequence that hold nothing and are not looked at.
        A row's bits depend on its own query and what it may look at, not on the other rows.
        """
        ...

    def noisy_choice(
        self,
        x: torch.Tensor,  # [rows, vocab] float32
        seeds: torch.Tensor,  # [rows] int64
        positions: torch.Tensor,  # [rows] int64
    ) -> torch.Tensor:
        """argmax(x + g) with the noise of sampling/noise.py; of equals the first. [rows] int64."""
        ...


class Reference:
    """Plain PyTorch: gathers what it attends to, makes all noise at once."""

    def __init__(self, shape: ModelShape, product: Product, *, tile_rows: int) -> None:
        """`product`: of small batches, with which attention is as exact as it is."""
        self._shape = shape
        self._product = product
        self.tile_rows = tile_rows

    def attend(
        self, q: torch.Tensor, layer: torch.Tensor, tiles: Tiles, *, unseen: int = 0
    ) -> torch.Tensor:
        """Copies every tile's context; for tests and small models."""
        heads, kv_heads, size = self._shape.heads, self._shape.kv_heads, self._shape.head_dim
        groups, width, count = heads // kv_heads, self.tile_rows, len(tiles.first)
        place = torch.arange(width, device=q.device)
        there = place < tiles.rows.unsqueeze(1)
        pick = (tiles.first.unsqueeze(1) + place * there).view(-1)
        blocks = tiles.tables.index_select(0, tiles.table).view(-1)
        kv = layer.view(layer.shape[0], -1).index_select(0, blocks)
        k, v = kv.view(count, -1, 2, kv_heads, size).transpose(1, 3).unbind(2)
        queries = q.index_select(0, pick).view(count, width, kv_heads, groups, size)
        queries = queries.permute(0, 2, 3, 1, 4).reshape(count, kv_heads, groups * width, size)
        tokens = torch.arange(k.shape[2], device=q.device)
        # A row that only fills up looks at one token: without any there is no weight to divide by.
        visible = tiles.visible.index_select(0, pick).clamp(min=unseen + 1)
        visible = visible.view(count, 1, width, 1)
        mask = torch.zeros((count, 1, width, len(tokens)), device=q.device)
        hidden = (tokens >= visible) | (tokens < unseen)
        mask = mask.masked_fill(hidden, float("-inf")).repeat(1, 1, groups, 1)
        o = blockwise(queries, k, v, mask, self._product)
        flat = o.view(count, kv_heads, groups, width, size).permute(0, 3, 1, 2, 4)
        nowhere = q.shape[0]
        target = torch.where(there.view(-1), pick, nowhere)
        out = q.new_zeros(nowhere + 1, heads * size)
        out.index_copy_(0, target, flat.reshape(count * width, heads * size))
        return out.narrow(0, 0, nowhere)

    def noisy_choice(
        self,
        x: torch.Tensor,  # [rows, vocab] float32
        seeds: torch.Tensor,  # [rows] int64
        positions: torch.Tensor,  # [rows] int64
    ) -> torch.Tensor:
        """[rows] int64."""
        return scores(x, seeds, positions).argmax(1)
