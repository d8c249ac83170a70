# pyright: reportUnknownMemberType=false
"""Matrix products whose rows do not depend on their company: measured, padded, cut into tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from engine.errors import EngineError
from engine.model.linear import Linear, RowBand, measure_band

if TYPE_CHECKING:
    from collections.abc import Callable

DTYPES = [torch.float32, torch.bfloat16]
SHAPES = [(64, 64), (960, 576), (576, 1536)]
"""(out, in): a tiny model's, and two of the embedded model's."""


def random(*size: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)).to(dtype)


def exactly(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """In float32 every row is right, hence the same, among any number of rows."""
    return (x.double() @ weight.double().T).float()


class Fickle:
    """A product that treats certain numbers of rows in another way; remembers what it was given."""

    def __init__(self, weight: torch.Tensor, otherwise: Callable[[int], bool]) -> None:
        self.weight, self.otherwise = weight, otherwise
        self.rows: list[int] = []

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.rows.append(x.shape[0])
        y = exactly(x, self.weight)
        return y * (1 + 2**-20) if self.otherwise(x.shape[0]) else y


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_linear_gives_a_row_the_same_bits_among_any_number_of_rows(
    shape: tuple[int, int], dtype: torch.dtype
) -> None:
    linear = Linear(random(*shape, dtype=dtype) * 0.05, bands={})
    x = random(150, shape[1], dtype=dtype, seed=1)
    alone = torch.cat([linear(x[row : row + 1]) for row in range(len(x))])
    for rows in (2, 3, 5, 8, 9, 17, 33, 64, 65, 100, 150):
        for start in (0, 150 - rows):
            together = linear(x[start : start + rows].contiguous())
            assert torch.equal(together, alone[start : start + rows]), f"{rows} rows from {start}"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("exact", [True, False])
def test_linear_is_the_product_with_bias(dtype: torch.dtype, exact: bool) -> None:
    weight, bias = random(48, 32, dtype=dtype), random(48, dtype=dtype, seed=2)
    linear = Linear(weight, bias, bands={} if exact else None)
    assert linear.out_features == 48
    for rows in (1, 7, 130):
        x = random(rows, 32, dtype=dtype, seed=3)
        expected = exactly(x, weight) + bias.float()
        tolerance = 0.1 if dtype is torch.bfloat16 else 1e-4
        torch.testing.assert_close(linear(x).float(), expected, atol=tolerance, rtol=0.01)


def test_linear_measures_each_shape_once_and_only_when_asked() -> None:
    bands: dict[torch.Size, RowBand] = {}
    one, two = (Linear(random(32, 16, seed=seed), bands=bands) for seed in (1, 2))
    assert one.band is two.band
    assert set(bands) == {torch.Size((32, 16))}
    assert Linear(random(32, 16), bands=None).band is None


def test_linear_pads_few_rows_and_tiles_many() -> None:
    weight = random(8, 16)
    linear = Linear(weight, bands={weight.shape: RowBand(4, 16)})
    kernel = Fickle(weight, lambda rows: not 4 <= rows <= 16)
    linear._kernel = kernel  # pyright: ignore[reportPrivateUsage]
    for rows in (1, 3, 4, 16, 17, 20, 33, 50):
        x = random(rows, 16, seed=rows)
        assert torch.equal(linear(x), exactly(x, weight))
    kernel.rows.clear()
    linear(random(33, 16))
    assert kernel.rows == [16, 16, 4], "the last tile is padded too"


BANDS: dict[str, tuple[Callable[[int], bool], RowBand]] = {
    "alike everywhere": (lambda rows: False, RowBand(1, 64)),
    "one row is another kernel": (lambda rows: rows == 1, RowBand(2, 64)),
    "few rows are": (lambda rows: rows < 4, RowBand(4, 64)),
    "many rows are": (lambda rows: rows > 40, RowBand(1, 32)),
    "few and many are": (lambda rows: rows > 20 or rows < 3, RowBand(21, 64)),
    "8 to 16 are": (lambda rows: 8 <= rows <= 16, RowBand(17, 64)),
    "one in the middle is": (lambda rows: rows == 40, RowBand(1, 32)),
}
"""Which numbers of rows a kernel treats in another way, and the band that is left."""


@pytest.mark.parametrize("case", BANDS)
def test_band_is_as_wide_as_the_kernel_is_alike(case: str) -> None:
    otherwise, band = BANDS[case]
    weight = random(8, 16)
    assert measure_band(Fickle(weight, otherwise), weight) == band


def test_kernel_that_depends_on_every_number_of_rows_is_refused() -> None:
    weight = random(8, 16)
    with pytest.raises(EngineError, match="no row-invariant band: use mode=fast"):
        measure_band(Fickle(weight, lambda rows: rows % 2 == 0), weight)


def test_kernel_that_depends_on_a_rows_place_is_refused() -> None:
    weight = random(8, 16)

    def kernel(x: torch.Tensor) -> torch.Tensor:
        y = exactly(x, weight)
        y[-1] *= 1 + 2**-20
        return y

    with pytest.raises(EngineError, match="no row-invariant band"):
        measure_band(kernel, weight)
