# pyright: reportMissingImports=false, reportUnknownMemberType=false
# pyright: reportIndexIssue=false, reportUnknownVariableType=false
# Triton comes with CUDA builds of PyTorch only, and its language is not Python's.
"""The `DeviceKernels` of GPUs: launches the Triton kernels of this folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton

from engine.kernels.cuda.attention import attend_pieces, join_pieces
from engine.kernels.cuda.noise import best_of_parts
from engine.sampling.device_noise import WORDS

if TYPE_CHECKING:
    from engine.kernels.device import Tiles
    from engine.model.llama import ModelShape

TILE = 16
"""Rows of a product, the fewest that tensor cores take; one shape for all rows, so that decoding,
drafts and prefill chunks sum alike.
"""
KEYS = 64
"""Tokens per product."""
SPLIT = 128
"""Tokens per piece of the context: a few hundred tokens already keep many processors busy."""
MOST_PIECES = 64
"""Longer contexts are cut into longer pieces: what pieces leave behind takes memory."""
LANES = 32
"""Most programs that share one tile's pieces."""
COUNTERS = 128
"""Philox counters per program: 1,024 tokens."""


class TritonKernels:
    """For models of one shape; owns the memory in which pieces of a step wait to be joined."""

    def __init__(
        self,
        shape: ModelShape,
        *,
        block_size: int,
        context: int,
        most_rows: int,
        device: torch.device,
    ) -> None:
        """`context`: most tokens a row looks at. `most_rows`: of a step. Takes `scratch_bytes`.

        Raises ValueError where more query heads share a key-value head than a tile has rows.
        """
        groups = shape.heads // shape.kv_heads
        if groups > TILE:
            raise ValueError(
                f"{groups} query heads per key-value head; at most {TILE} are supported"
            )
        self.tile_rows = TILE // groups
        self._shape, self._block_size = shape, block_size
        self._split = piece_length(context)
        self._pieces = -(-context // self._split)
        made = (most_rows, shape.heads, self._pieces)
        self._sums = torch.empty((*made, shape.head_dim), dtype=torch.float32, device=device)
        self._weights = torch.empty((*made, 2), dtype=torch.float32, device=device)

    def attend(
        self, q: torch.Tensor, layer: torch.Tensor, tiles: Tiles, *, unseen: int = 0
    ) -> torch.Tensor:
        """[rows, heads * head_dim], in q's dtype."""
        shape = self._shape
        q = q.contiguous()
        out = torch.empty_like(q)
        wide = triton.next_power_of_2(shape.head_dim)
        lanes = min(self._pieces, LANES)
        attend_pieces[(len(tiles.first), shape.kv_heads, lanes)](
            q,
            layer,
            self._sums,
            self._weights,
            tiles.first,
            tiles.rows,
            tiles.table,
            tiles.visible,
            tiles.tables,
            tiles.tables.shape[1],
            self._pieces,
            shape.head_dim**-0.5,
            HEADS=shape.heads,
            KV_HEADS=shape.kv_heads,
            HEAD_DIM=shape.head_dim,
            WIDE=wide,
            BLOCK_SIZE=self._block_size,
            TILE=TILE,
            KEYS=KEYS,
            SPLIT=self._split,
            UNSEEN=unseen,
            LANES=lanes,
            PRECISION="ieee",
            num_warps=4,
        )
        join_pieces[(q.shape[0], shape.heads)](
            self._sums,
            self._weights,
            tiles.visible,
            out,
            self._pieces,
            HEADS=shape.heads,
            HEAD_DIM=shape.head_dim,
            WIDE=wide,
            SPLIT=self._split,
            num_warps=1,
        )
        return out

    def noisy_choice(
        self,
        x: torch.Tensor,  # [rows, vocab] float32
        seeds: torch.Tensor,  # [rows] int64
        positions: torch.Tensor,  # [rows] int64
    ) -> torch.Tensor:
        """[rows] int64."""
        rows, vocab = x.shape
        parts = -(-vocab // (COUNTERS * WORDS))
        best = torch.empty((rows, parts), dtype=torch.float64, device=x.device)
        where = torch.empty((rows, parts), dtype=torch.int64, device=x.device)
        best_of_parts[(rows, parts)](
            x.contiguous(), seeds, positions, best, where, vocab, COUNTERS=COUNTERS, num_warps=4
        )
        return where.gather(1, best.argmax(1, keepdim=True)).squeeze(1)


def piece_length(context: int) -> int:
    """Tokens per piece: a power of two times SPLIT, such that there are at most MOST_PIECES."""
    return max(SPLIT, triton.next_power_of_2(-(-context // MOST_PIECES)))


def scratch_bytes(shape: ModelShape, *, context: int, most_rows: int) -> int:
    """What `TritonKernels` takes for itself."""
    pieces = -(-context // piece_length(context))
    return most_rows * shape.heads * pieces * (shape.head_dim + 2) * 4
