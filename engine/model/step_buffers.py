"""What a step needs of the host, in memory that stays where it is: recorded work reads it there.

All of it lies in one stretch, on the device and, as its twin, on the host; a step fills the twin
and sends it with one copy. Block tables come last, and only those in use travel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from engine.kernels.device import Tiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from engine.model.batch import Span

ALIGNMENT = 16
KINDS = {
    np.dtype(np.bool_): torch.bool,
    np.dtype(np.int32): torch.int32,
    np.dtype(np.int64): torch.int64,
    np.dtype(np.float32): torch.float32,
    np.dtype(np.float64): torch.float64,
}


class Field(NamedTuple):
    """Where an array lies in a stretch of bytes."""

    at: int
    bytes: int
    kind: np.dtype
    shape: tuple[int, ...]


class Twins:
    """Named arrays in one stretch of memory on a device, and the same on the host."""

    def __init__(
        self, fields: dict[str, tuple[type, tuple[int, ...]]], device: torch.device
    ) -> None:
        """`fields`: numpy type and shape by name; the last one may be sent in part."""
        self._fields: dict[str, Field] = {}
        at = 0
        for name, (kind, shape) in fields.items():
            wanted = np.dtype(kind)
            size = wanted.itemsize * int(np.prod(shape))
            self._fields[name] = Field(at, size, wanted, shape)
            at += -(-size // ALIGNMENT) * ALIGNMENT
        if torch.cuda.is_available():
            # Copies from pinned memory do not wait for the device.
            self._host = torch.zeros(at, dtype=torch.uint8, pin_memory=True)
            self._bytes = self._host.numpy()
        else:
            self._bytes = np.zeros(at, np.uint8)
            self._host = torch.from_numpy(self._bytes)
        self._device = torch.zeros(at, dtype=torch.uint8, device=device)
        self._sent = torch.cuda.Event() if torch.cuda.is_available() else None

    @property
    def names(self) -> list[str]:
        return list(self._fields)

    def host(self, name: str) -> NDArray[np.generic]:
        """To be filled, then sent. Waits until the last copy has left."""
        if self._sent is not None:
            self._sent.synchronize()
        field = self._fields[name]
        return self._bytes[field.at : field.at + field.bytes].view(field.kind).reshape(field.shape)

    def device(self, name: str) -> torch.Tensor:
        field = self._fields[name]
        stretch = self._device.narrow(0, field.at, field.bytes)
        return stretch.view(KINDS[field.kind]).view(field.shape)

    def send(self, rows: int | None = None) -> None:
        """Copy all to the device, of the last field only its first `rows`; returns at once."""
        last = next(reversed(self._fields.values()))
        end = last.at + last.bytes
        if rows is not None:
            end = last.at + last.bytes // last.shape[0] * rows
        self._device.narrow(0, 0, end).copy_(self._host.narrow(0, 0, end), non_blocking=True)
        if self._sent is not None:
            self._sent.record()


class Shape(NamedTuple):
    """Sizes of a step as it is recorded."""

    rows: int
    wanted: int
    """Rows whose logits are computed."""


class StepBuffers:
    """A step's rows and block tables."""

    def __init__(
        self,
        *,
        most_rows: int,
        most_sequences: int,
        most_blocks: int,
        spare_slot: int,
        nothing_slot: int,
        block_size: int,
        tile_rows: int,
        device: torch.device,
    ) -> None:
        """`most_blocks`: per sequence. `spare_slot`: where rows that only fill up write.
        `nothing_slot`: what is said to lie before a text's first token.
        """
        self._nothing_slot = nothing_slot
        self.most_rows, self.most_sequences = most_rows, most_sequences
        self._spare_slot, self._block_size, self._tile_rows = spare_slot, block_size, tile_rows
        row, wide = (most_rows,), np.int64
        self._twins = Twins(
            {
                "tokens": (wide, row),
                "positions": (wide, row),
                "slots": (wide, row),
                "before": (wide, row),
                "wanted": (wide, row),
                "first": (np.int32, row),
                "count": (np.int32, row),
                "table": (np.int32, row),
                "visible": (np.int32, row),
                "tables": (np.int32, (most_sequences, most_blocks)),
            },
            device,
        )

    def fill(self, spans: Sequence[Span], shape: Shape) -> None:
        """Lay `spans` out one after another, fill up to `shape`, and send it."""
        host = {name: self._twins.host(name) for name in self._twins.names}
        for name in ("tokens", "positions", "wanted", "first", "count", "table", "visible"):
            host[name][: shape.rows] = 0
        host["slots"][: shape.rows] = self._spare_slot
        host["before"][: shape.rows] = self._nothing_slot
        size, at, wanted, tile = self._block_size, 0, 0, 0
        for number, span in enumerate(spans):
            count, end = len(span.tokens), len(span.tokens) + at
            table = np.asarray(span.block_table, np.int32)
            host["tables"][number, : len(table)] = table
            where = np.arange(span.start, span.start + count)
            host["tokens"][at:end] = span.tokens
            host["positions"][at:end] = where
            host["visible"][at:end] = where + 1
            slots = table[where // size] * size + where % size
            host["slots"][at:end] = slots
            host["before"][at + 1 : end] = slots[:-1]
            if span.start:
                last = span.start - 1
                host["before"][at] = span.block_table[last // size] * size + last % size
            logits = count - span.logits_from
            host["wanted"][wanted : wanted + logits] = np.arange(at + span.logits_from, end)
            starts = np.arange(at, end, self._tile_rows)
            tiles = slice(tile, tile + len(starts))
            host["first"][tiles] = starts
            host["count"][tiles] = np.minimum(end - starts, self._tile_rows)
            host["table"][tiles] = number
            at, wanted, tile = end, wanted + logits, tile + len(starts)
        self._twins.send(len(spans))

    def rows(self, name: str, shape: Shape) -> torch.Tensor:
        """tokens, positions, slots or before [shape.rows], wanted [shape.wanted]; on the device."""
        count = shape.wanted if name == "wanted" else shape.rows
        return self._twins.device(name).narrow(0, 0, count)

    def tiles(self, shape: Shape) -> Tiles:
        return Tiles(
            first=self.rows("first", shape),
            rows=self.rows("count", shape),
            table=self.rows("table", shape),
            visible=self.rows("visible", shape),
            tables=self._twins.device("tables"),
        )
