"""What is written to a slot is read back through the block table."""

from __future__ import annotations

import pytest
import torch

from engine.model.kv_cache import KVCache

LAYERS, BLOCKS, SIZE, HEADS, DIM = 2, 5, 16, 3, 4


@pytest.fixture
def cache() -> KVCache:
    return KVCache(
        layers=LAYERS,
        num_blocks=BLOCKS,
        block_size=SIZE,
        kv_heads=HEADS,
        head_dim=DIM,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )


def numbered(slots: torch.Tensor) -> torch.Tensor:
    """Rows that say which slot and which element they are."""
    return slots[:, None] * 100.0 + torch.arange(2 * HEADS * DIM)


def test_cache_reads_what_was_written_in_the_order_of_the_table(cache: KVCache) -> None:
    slots = torch.randperm(BLOCKS * SIZE, generator=torch.Generator().manual_seed(0))
    cache.write(1, slots, numbered(slots))
    table = torch.tensor([[4, 0, 2], [1, 1, 3]])
    keys, values = cache.read(1, table, None)
    assert keys.shape == values.shape == (2, HEADS, 3 * SIZE, DIM)
    for sequence, blocks in enumerate(table):
        for place in range(3 * SIZE):
            row = numbered(blocks[place // SIZE] * SIZE + torch.tensor([place % SIZE]))[0]
            assert torch.equal(keys[sequence, :, place], row[: HEADS * DIM].view(HEADS, DIM))
            assert torch.equal(values[sequence, :, place], row[HEADS * DIM :].view(HEADS, DIM))


def test_cache_reads_a_run_of_blocks_without_copying(cache: KVCache) -> None:
    slots = torch.arange(BLOCKS * SIZE)
    cache.write(0, slots, numbered(slots))
    table = torch.tensor([[2, 3, 4]])
    for view, copy in zip(cache.read(0, table, (2, 3)), cache.read(0, table, None), strict=True):
        assert torch.equal(view, copy)
        assert view.untyped_storage().data_ptr() == cache.layers[0].untyped_storage().data_ptr()


def test_cache_keeps_layers_apart_and_begins_with_zeros(cache: KVCache) -> None:
    cache.write(0, torch.tensor([3]), torch.ones(1, 2 * HEADS * DIM))
    assert cache.layers[0].sum() == 2 * HEADS * DIM
    assert cache.layers[1].abs().sum() == 0


def test_cache_is_as_large_as_planned(cache: KVCache) -> None:
    held = sum(layer.nbytes for layer in cache.layers)
    per_token = KVCache.bytes_per_token(LAYERS, HEADS, DIM, torch.float32)
    assert held == BLOCKS * SIZE * per_token
