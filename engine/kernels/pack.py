"""From weights by name to the tiles of sixteen outputs that the CPU kernels read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from engine.kernels.library import LANES, Memory, Weight
from engine.loading.weights import BLOCK, BlockWeight, Kind, stacked

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from engine.kernels.library import Library


class PackedWeight:
    """A weight in kernel layout, and the memory it lies in."""

    def __init__(
        self,
        library: Library,
        weight: BlockWeight,
        bias: NDArray[np.float32] | None = None,
    ) -> None:
        """`weight` [out, in], `bias` [out]; outputs are rounded up to whole tiles with zeros."""
        out, width = weight.shape
        tiles = tiles_of(weight)
        self._memory = Memory(library, tiles.nbytes)
        self._memory.array()[:] = tiles.reshape(-1).view(np.uint8)
        self._bias = None if bias is None else padded(bias)
        self.bytes = tiles.nbytes
        self.struct = Weight(
            kind=int(weight.kind),
            out=out,
            in_=width,
            data=self._memory.address,
            bias=None if self._bias is None else self._bias.ctypes.data,
        )


def padded(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """[n] rounded up to whole tiles with zeros."""
    return np.pad(values.astype(np.float32), (0, -len(values) % LANES))


def tiles_of(weight: BlockWeight) -> NDArray[np.generic]:
    """The layout that cpu/linear.h describes, flat per tile. Not changed: the weight."""
    weight = _whole_tiles(weight)
    out, width = weight.shape
    tiles, blocks = out // LANES, width // BLOCK
    values = weight.values
    if weight.kind in (Kind.FLOAT32, Kind.BFLOAT16):
        return np.ascontiguousarray(values.reshape(tiles, LANES, width).swapaxes(1, 2))
    groups = 8 if weight.kind is Kind.INT8 else 4
    q = values.view(np.uint8).reshape(tiles, LANES, blocks, groups, 4)
    # [tile][block][group][output][input of the group]
    parts = [q.transpose(0, 2, 3, 1, 4).reshape(tiles, blocks, -1)]
    for halves in (weight.scales, weight.minima):
        if halves is not None:
            by_block = halves.reshape(tiles, LANES, blocks).swapaxes(1, 2)
            parts.append(np.ascontiguousarray(by_block).view(np.uint8))
    return np.concatenate(parts, axis=2)


def _whole_tiles(weight: BlockWeight) -> BlockWeight:
    rows = weight.values.shape[0]
    missing = -rows % LANES
    if not missing:
        return weight
    return weight.mapped(lambda part: np.pad(part, ((0, missing), (0, 0))))


def interleaved(gate: BlockWeight, up: BlockWeight) -> BlockWeight | None:
    """Tiles of gate and up in turns; None where they are of different kinds."""
    both = stacked([gate, up])
    if both is None:
        return None
    order = np.arange(2 * gate.shape[0]).reshape(2, -1, LANES).swapaxes(0, 1).reshape(-1)
    return both.rows(order)
