# pyright: reportUnknownMemberType=false
# torch declares some of its types in part only.
"""Attention over paged contexts as a step has it, and the same worked out in double precision."""

from __future__ import annotations

from typing import NamedTuple

import torch

from engine.kernels.device import Tiles
from engine.model.llama import ModelShape

BLOCK = 16


class Case(NamedTuple):
    q: torch.Tensor
    layer: torch.Tensor
    tiles: Tiles
    spans: list[tuple[int, int]]
    """By sequence: its rows in this step, and the tokens behind which they stand."""


def shape_of(heads: int, kv_heads: int, head_dim: int) -> ModelShape:
    return ModelShape(320, heads * head_dim, 128, 1, heads, kv_heads, head_dim, 1e-5, 4096)


def case(
    shape: ModelShape,
    spans: list[tuple[int, int]],
    *,
    tile_rows: int,
    dtype: torch.dtype = torch.float32,
    filling: int = 0,
    device: str = "cpu",
) -> Case:
    """`spans` (rows, tokens before them); `filling` more rows that mean nothing. A sequence's keys
    and queries depend on its place among the spans alone.
    """
    longest = max(-(-(rows + before) // BLOCK) for rows, before in spans)
    order = torch.randperm(longest * len(spans), generator=torch.Generator().manual_seed(1))
    tables = order.view(len(spans), longest).int()
    layer = torch.zeros(len(order), BLOCK, 2, shape.kv_heads, shape.head_dim)
    rows_of: list[torch.Tensor] = []
    first: list[int] = []
    count: list[int] = []
    table: list[int] = []
    visible: list[int] = []
    for number, (rows, before) in enumerate(spans):
        draw = torch.Generator().manual_seed(number)
        wide = shape.heads * shape.head_dim
        own = torch.randn(before + rows, wide, generator=draw)
        rows_of.append(own[before:])
        kv = torch.randn(longest * BLOCK, *layer.shape[2:], generator=draw)
        layer[tables[number].long()] = kv.view(longest, BLOCK, *layer.shape[2:])
        at = len(visible)
        for start in range(0, rows, tile_rows):
            first.append(at + start)
            count.append(min(tile_rows, rows - start))
            table.append(number)
        visible += range(before + 1, before + rows + 1)
    rows_of.append(torch.zeros(filling, shape.heads * shape.head_dim))
    spare = [0] * filling

    def column(values: list[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int32).to(device)

    tiles = Tiles(
        first=column(first + spare),
        rows=column(count + spare),
        table=column(table + spare),
        visible=column(visible + spare),
        tables=tables.to(device),
    )
    return Case(torch.cat(rows_of).to(device, dtype), layer.to(device, dtype), tiles, spans)


def in_double(shape: ModelShape, given: Case) -> torch.Tensor:
    """[rows of the spans, heads * head_dim] float64, from the definition of attention."""
    groups = shape.heads // shape.kv_heads
    out: list[torch.Tensor] = []
    at = 0
    for number, (rows, before) in enumerate(given.spans):
        blocks = given.tiles.tables[number].long()
        kv = given.layer[blocks].double().view(-1, *given.layer.shape[2:])
        k, v = kv[:, 0].repeat_interleave(groups, 1), kv[:, 1].repeat_interleave(groups, 1)
        q = given.q[at : at + rows].double().view(rows, shape.heads, shape.head_dim)
        scores = torch.einsum("rhd,thd->rht", q, k) * shape.head_dim**-0.5
        sees = before + 1 + torch.arange(rows, device=q.device)
        hidden = torch.arange(k.shape[0], device=q.device)[None] >= sees[:, None]
        weights = scores.masked_fill(hidden[:, None], float("-inf")).softmax(2)
        out.append(torch.einsum("rht,thd->rhd", weights, v).reshape(rows, -1))
        at += rows
    return torch.cat(out)
