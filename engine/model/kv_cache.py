"""The keys and values of all sequences, in blocks. Storage only; who owns a block is blocks.py's
matter.
"""

from __future__ import annotations

import torch


class KVCache:
    """Per layer one tensor [num_blocks, block_size, 2, kv_heads, head_dim]; index 0 keys, 1 values.

    Keys and values of one token lie together, so that a step writes them with one copy and reads a
    block of both with one gather. Slot s is token s % block_size of block s // block_size.
    """

    def __init__(
        self,
        *,
        layers: int,
        num_blocks: int,
        block_size: int,
        kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.num_blocks, self.block_size = num_blocks, block_size
        shape = (num_blocks, block_size, 2, kv_heads, head_dim)
        # Zeros, not empty: padded attention multiplies unwritten slots by weight 0, and 0 * NaN is
        # NaN.
        self.layers = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(layers)]
        self._row = 2 * kv_heads * head_dim

    @staticmethod
    def bytes_per_token(layers: int, kv_heads: int, head_dim: int, dtype: torch.dtype) -> int:
        return layers * 2 * kv_heads * head_dim * dtype.itemsize

    def write(self, layer: int, slots: torch.Tensor, kv: torch.Tensor) -> None:
        """Store kv [rows, 2 * kv_heads * head_dim] at slots [rows] int64. Mutates the cache."""
        self.layers[layer].view(-1, self._row).index_copy_(0, slots, kv)

    def read(
        self, layer: int, blocks: torch.Tensor, run: tuple[int, int] | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [sequences, kv_heads, tokens, head_dim] of blocks [sequences, n] int64.

        `run` (first, n) says that there is one sequence and its blocks are consecutive: then these
        are views into the cache, otherwise copies.
        """
        cache = self.layers[layer]
        if run is not None:
            first, count = run
            kv = cache[first : first + count].view(1, -1, *cache.shape[2:])
        else:
            sequences, count = blocks.shape
            kv = cache.view(cache.shape[0], -1).index_select(0, blocks.view(-1))
            kv = kv.view(sequences, count * self.block_size, *cache.shape[2:])
        return kv[:, :, 0].transpose(1, 2), kv[:, :, 1].transpose(1, 2)
