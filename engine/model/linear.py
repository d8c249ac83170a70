"""Matrix products whose result for a row does not depend on how many other rows there are.

A BLAS picks its kernel, and with it the order of its sums, by the number of rows. So the same
token, computed alone, inside a draft or inside a prefill chunk, may differ in its last bits, and
one flipped arg-max later the text differs. In exact mode every product is therefore made with a
number of rows inside a band in which this machine's kernel was found, bit for bit, to give each row
the same result (`measure_band`, run at load time): fewer rows are padded, more are cut into tiles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F

from engine.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

TILE_CANDIDATES = (64, 32, 16, 8)
"""Largest number of rows in one product, best first; beyond 64 nothing is gained over two tiles."""
PACK_ROWS_HINT = 32
"""Rows oneDNN lays the packed weights out for; decode steps of 1 to 32 rows are what we serve."""


class RowBand(NamedTuple):
    """Row counts `least` … `most` give bitwise the same rows."""

    least: int
    most: int


class Linear:
    """y = x Wᵀ (+ b) over a weight [out, in] that is packed for oneDNN once, where that exists."""

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
        *,
        bands: dict[torch.Size, RowBand] | None,
    ) -> None:
        """`bands` remembers what was measured for each weight shape; None: no exactness wanted."""
        self.out_features = weight.shape[0]
        self._kernel = _kernel(weight, bias)
        self.band: RowBand | None = None
        if bands is not None:
            if weight.shape not in bands:
                bands[weight.shape] = measure_band(self._kernel, weight)
            self.band = bands[weight.shape]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:  # x: [rows, in] -> [rows, out]
        band = self.band
        rows = x.shape[0]
        if band is None or band.least <= rows <= band.most:
            return self._kernel(x)
        if rows < band.least:
            return self._kernel(F.pad(x, (0, 0, 0, band.least - rows)))[:rows]
        y = x.new_empty(rows, self.out_features)
        for start in range(0, rows, band.most):
            tile = x[start : start + band.most]
            y[start : start + band.most] = self(tile)
        return y


def _kernel(
    weight: torch.Tensor, bias: torch.Tensor | None
) -> Callable[[torch.Tensor], torch.Tensor]:
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return lambda x: F.linear(x, weight, bias)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, PACK_ROWS_HINT)
    product = torch.ops.mkldnn._linear_pointwise
    return lambda x: product(x, packed, bias, "none", [], "")


def measure_band(kernel: Callable[[torch.Tensor], torch.Tensor], weight: torch.Tensor) -> RowBand:
    """Find the widest band of row counts in which `kernel` treats rows alike. [out, in] weight.

    Raises EngineError where no band of at least 8 rows exists.
    """
    generator = torch.Generator().manual_seed(0)
    for most in TILE_CANDIDATES:
        x = torch.randn(most, weight.shape[1], generator=generator).to(weight)
        whole = kernel(x)
        least = most
        while least > 1 and _alike(kernel, x, whole, least - 1):
            least -= 1
        if least <= most // 2:
            return RowBand(least, most)
    raise EngineError("this machine's matrix product has no row-invariant band: use mode=fast")


def _alike(
    kernel: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    whole: torch.Tensor,
    rows: int,
) -> bool:
    """Whether `rows` rows from the top and from the bottom come out as they did among all."""
    top = torch.equal(kernel(x[:rows]), whole[:rows])
    return top and torch.equal(kernel(x[-rows:].contiguous()), whole[-rows:])
