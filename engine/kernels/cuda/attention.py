# pyright: basic, reportMissingImports=false, reportUnknownMemberType=false
# Triton comes with CUDA builds of PyTorch only, and its language is not Python's.
"""Attention of few rows over long paged contexts, split over the context (flash decoding, Dao et
al. 2023), as two Triton kernels.

A tile's rows are the query rows of one sequence times the query heads that share a key-value
head. A context is cut every `split` tokens from its beginning, whatever its length; each piece is
attended to by itself, and the pieces are put together one after another, from the first to the
row's own last. So a row's sums are always the same ones in the same order, in any company: what is
masked adds exact zeros.
"""

from __future__ import annotations

import triton
import triton.language as tl

NOTHING = tl.constexpr(float("-inf"))


@triton.jit
def attend_pieces(
    q,  # [rows, heads * head_dim]
    cache,  # [blocks, block_size, 2, kv_heads, head_dim]
    sums,  # [rows, heads, pieces, head_dim] float32, written: unnormalised
    weights,  # [rows, heads, pieces, 2] float32, written: largest score, sum of weights
    first,  # [tiles] int32
    count,  # [tiles] int32
    table,  # [tiles] int32
    visible,  # [rows] int32
    tables,  # [sequences, table_width] int32
    table_width,
    pieces,
    scale,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    WIDE: tl.constexpr,  # HEAD_DIM up to a power of two
    BLOCK_SIZE: tl.constexpr,
    TILE: tl.constexpr,  # query rows times query heads of a tile
    KEYS: tl.constexpr,  # tokens per product
    SPLIT: tl.constexpr,  # tokens per piece, a multiple of KEYS
    UNSEEN: tl.constexpr,  # tokens at the start that no row looks at
    LANES: tl.constexpr,  # programs that share a tile's pieces
    PRECISION: tl.constexpr,
):
    GROUPS: tl.constexpr = HEADS // KV_HEADS
    tile = tl.program_id(0)
    head = tl.program_id(1)
    lane = tl.program_id(2)
    rows = tl.load(count + tile)
    if rows == 0:
        return
    place = tl.arange(0, TILE)
    there = place // GROUPS < rows
    row = (tl.load(first + tile) + place // GROUPS).to(tl.int64)
    query_head = head * GROUPS + place % GROUPS
    sees = tl.load(visible + row, mask=there, other=0)
    most = tl.max(sees, 0)
    blocks = tables + tl.load(table + tile).to(tl.int64) * table_width
    dim = tl.arange(0, WIDE)
    used = dim < HEAD_DIM
    at = row * (HEADS * HEAD_DIM) + query_head * HEAD_DIM
    queries = tl.load(
        q + at[:, None] + dim[None, :], mask=there[:, None] & used[None, :], other=0.0
    )
    for piece in range(lane, tl.cdiv(most, SPLIT), LANES):
        begin = piece * SPLIT
        largest = tl.full((TILE,), NOTHING, tl.float32)
        total = tl.zeros((TILE,), tl.float32)
        sum_ = tl.zeros((TILE, WIDE), tl.float32)
        for start in range(begin, tl.minimum(begin + SPLIT, most), KEYS):
            token = start + tl.arange(0, KEYS)
            exists = token < most
            block = tl.load(blocks + token // BLOCK_SIZE, mask=exists, other=0).to(tl.int64)
            slot = block * BLOCK_SIZE + token % BLOCK_SIZE
            where = slot * (2 * KV_HEADS * HEAD_DIM) + head * HEAD_DIM
            both = exists[:, None] & used[None, :]
            keys = tl.load(cache + where[:, None] + dim[None, :], mask=both, other=0.0)
            scores = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * scale
            seen = (token[None, :] < sees[:, None]) & (token[None, :] >= UNSEEN)
            scores = tl.where(seen, scores, NOTHING)
            higher = tl.maximum(largest, tl.max(scores, 1))
            # A row that has seen nothing yet: any finite number, for its weights are all zero.
            base = tl.where(higher == NOTHING, 0.0, higher)
            weight = tl.exp(scores - base[:, None])
            fade = tl.exp(largest - base)
            values = tl.load(
                cache + where[:, None] + KV_HEADS * HEAD_DIM + dim[None, :], mask=both, other=0.0
            )
            product = tl.dot(weight.to(values.dtype), values, input_precision=PRECISION)
            sum_ = sum_ * fade[:, None] + product
            total = total * fade + tl.sum(weight, 1)
            largest = higher
        to = (row * HEADS + query_head) * pieces + piece
        tl.store(
            sums + to[:, None] * HEAD_DIM + dim[None, :],
            sum_,
            mask=there[:, None] & used[None, :],
        )
        tl.store(weights + to * 2, largest, mask=there)
        tl.store(weights + to * 2 + 1, total, mask=there)


@triton.jit
def join_pieces(
    sums,  # [rows, heads, pieces, head_dim] float32
    weights,  # [rows, heads, pieces, 2] float32
    visible,  # [rows] int32
    out,  # [rows, heads * head_dim], written
    pieces,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    WIDE: tl.constexpr,
    SPLIT: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    dim = tl.arange(0, WIDE)
    used = dim < HEAD_DIM
    begin = (row * HEADS + head) * pieces
    # Scalars live as vectors of one: a loop's variables keep their type.
    largest = tl.full((1,), NOTHING, tl.float32)
    total = tl.zeros((1,), tl.float32)
    sum_ = tl.zeros((WIDE,), tl.float32)
    for piece in range(0, tl.cdiv(tl.load(visible + row), SPLIT)):
        at = begin + piece
        own = tl.load(weights + at * 2 + tl.arange(0, 1))
        higher = tl.maximum(largest, own)
        before = tl.exp(largest - higher)
        factor = tl.exp(own - higher)
        part = tl.load(sums + at * HEAD_DIM + dim, mask=used, other=0.0)
        sum_ = sum_ * before + part * factor
        total = total * before + tl.load(weights + at * 2 + 1 + tl.arange(0, 1)) * factor
        largest = higher
    # A row that only fills up has no pieces.
    result = sum_ / tl.where(total > 0.0, total, 1.0)
    to = out + (row * HEADS + head) * HEAD_DIM + dim
    tl.store(to, result.to(out.dtype.element_ty), mask=used)
