# pyright: reportUnknownMemberType=false
"""A packed product is the product."""

from __future__ import annotations

import pytest
import torch

from engine.model.linear import Linear


def random(*size: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_linear_is_the_product_with_bias(dtype: torch.dtype) -> None:
    weight, bias = random(48, 32, dtype=dtype, seed=0), random(48, dtype=dtype, seed=2)
    linear = Linear(weight, bias)
    assert (linear.out_features, linear.in_features) == (48, 32)
    for rows in (1, 7, 130):
        x = random(rows, 32, dtype=dtype, seed=3)
        expected = (x.double() @ weight.double().T + bias.double()).float()
        tolerance = 0.1 if dtype is torch.bfloat16 else 1e-4
        torch.testing.assert_close(linear(x).float(), expected, atol=tolerance, rtol=0.01)


def test_linears_have_one_name_where_they_run_the_same_code() -> None:
    def name(out: int, width: int, *, bias: bool = False) -> str:
        return Linear(torch.zeros(out, width), torch.zeros(out) if bias else None).name

    assert name(8, 4) == name(8, 4)
    assert len({name(8, 4), name(4, 8), name(8, 4, bias=True)}) == 3
