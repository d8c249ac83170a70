"""From spans of tokens to one forward pass: flat rows, slots, and rectangles for attention."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from engine.config import MAX_DRAFT_LENGTH
from engine.model.attention import Rows
from engine.model.llama import ModelInput

NARROW = MAX_DRAFT_LENGTH + 1
"""Most rows of a decoding sequence; wider spans (prefill chunks) attend one by one."""
SMALL_CONTEXT_BLOCKS = 32
"""Contexts up to here share a rectangle: padding costs less than another call per layer."""


class Span(NamedTuple):
    """Consecutive tokens of one sequence, to compute keys, values and perhaps logits for."""

    tokens: list[int]
    start: int
    """Position of the first one."""
    block_table: list[int]
    logits_from: int
    """Index in `tokens` from which on logits are wanted; len(tokens): none."""


def build_input(
    spans: list[Span], *, block_size: int, groups: int, dtype: torch.dtype, device: torch.device
) -> ModelInput:
    """Lay spans out one after another. `groups`: query heads per key-value head."""
    tokens: list[int] = []
    wanted: list[int] = []
    positions: list[np.ndarray] = []
    slots: list[np.ndarray] = []
    firsts: list[int] = []
    for span in spans:
        first, count = len(tokens), len(span.tokens)
        firsts.append(first)
        tokens.extend(span.tokens)
        wanted.extend(range(first + span.logits_from, first + count))
        where = np.arange(span.start, span.start + count)
        positions.append(where)
        table = np.asarray(span.block_table)
        slots.append(table[where // block_size] * block_size + where % block_size)
    rectangles = [
        _rectangle([spans[i] for i in members], [firsts[i] for i in members], block_size, groups)
        for members in _grouped(spans, block_size)
    ]
    return ModelInput(
        tokens=torch.tensor(tokens, device=device),
        positions=torch.from_numpy(np.concatenate(positions)).to(device),
        slots=torch.from_numpy(np.concatenate(slots)).to(device),
        groups=[rows.to(len(tokens), dtype, device) for rows in rectangles],
        logits_for=torch.tensor(wanted, dtype=torch.int64, device=device),
    )


def _grouped(spans: list[Span], block_size: int) -> list[list[int]]:
    """Indices of spans that share a rectangle: narrow ones with contexts of like size."""
    shared: dict[int, list[int]] = {}
    alone: list[list[int]] = []
    for number, span in enumerate(spans):
        if len(span.tokens) > NARROW:
            alone.append([number])
        else:
            blocks = -(-(span.start + len(span.tokens)) // block_size)
            size = 0 if blocks <= SMALL_CONTEXT_BLOCKS else blocks.bit_length()
            shared.setdefault(size, []).append(number)
    return [*shared.values(), *alone]


class _Rectangle(NamedTuple):
    """`Rows` as numpy arrays, before they move to the device."""

    pick: np.ndarray  # [sequences, width]
    blocks: np.ndarray  # [sequences, n]
    visible: np.ndarray  # [sequences, 1, groups * width, n * block_size] bool
    back: np.ndarray
    target: np.ndarray

    def to(self, rows: int, dtype: torch.dtype, device: torch.device) -> Rows:
        visible = torch.from_numpy(self.visible).to(device)
        mask = torch.zeros(visible.shape, dtype=dtype, device=device)
        mask.masked_fill_(visible.logical_not(), float("-inf"))
        first, count = int(self.blocks[0, 0]), self.blocks.shape[1]
        consecutive = np.array_equal(self.blocks, np.arange(first, first + count)[None])
        return Rows(
            pick=torch.from_numpy(self.pick).to(device),
            blocks=torch.from_numpy(self.blocks).to(device),
            run=(first, count) if consecutive else None,
            mask=mask,
            back=torch.from_numpy(self.back).to(device),
            target=torch.from_numpy(self.target).to(device),
            dense=self.pick.size == rows and len(self.target) == rows,
        )


def _rectangle(spans: list[Span], firsts: list[int], block_size: int, groups: int) -> _Rectangle:
    width = max(len(span.tokens) for span in spans)
    blocks = max(-(-(span.start + len(span.tokens)) // block_size) for span in spans)
    pick = np.empty((len(spans), width), np.int64)
    table = np.zeros((len(spans), blocks), np.int64)
    position = np.empty((len(spans), width), np.int64)
    back: list[int] = []
    target: list[int] = []
    for number, (span, first) in enumerate(zip(spans, firsts, strict=True)):
        count = len(span.tokens)
        pick[number, :count] = np.arange(first, first + count)
        pick[number, count:] = first
        position[number, :count] = np.arange(span.start, span.start + count)
        position[number, count:] = span.start
        used = span.block_table[:blocks]
        table[number, : len(used)] = used
        back.extend(range(number * width, number * width + count))
        target.extend(range(first, first + count))
    visible = np.arange(blocks * block_size) <= position[:, :, None]
    return _Rectangle(
        pick=pick,
        blocks=table,
        visible=np.tile(visible[:, None], (1, 1, groups, 1)),
        back=np.array(back, np.int64),
        target=np.array(target, np.int64),
    )
