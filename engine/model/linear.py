"""Matrix products with a weight that stays the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from collections.abc import Callable

PACK_ROWS_HINT = 32
"""Rows oneDNN lays the packed weights out for; decode steps of 1 to 32 rows are what we serve."""


class Linear:
    """y = x Wᵀ (+ b) over a weight [out, in] that is packed for oneDNN once, where that exists.

    Which numbers of rows may be mixed is not known here: see invariance.py.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        self.out_features, self.in_features = weight.shape
        self._kernel = _kernel(weight, bias)
        self.name = (
            f"product {self.out_features}x{self.in_features}{' + bias' * (bias is not None)}"
        )
        """The same for all that run the same code."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:  # x: [rows, in] -> [rows, out]
        return self._kernel(x)


def _kernel(
    weight: torch.Tensor, bias: torch.Tensor | None
) -> Callable[[torch.Tensor], torch.Tensor]:
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return lambda x: F.linear(x, weight, bias)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, PACK_ROWS_HINT)
    product = torch.ops.mkldnn._linear_pointwise
    return lambda x: product(x, packed, bias, "none", [], "")
