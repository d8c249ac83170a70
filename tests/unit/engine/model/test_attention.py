# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# torch declares some of its types in part only.
"""Attention against a plain softmax, and its promise that company changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from engine.model import attention
from engine.model.attention import Attention, halved, small_products, summed
from engine.model.batch import Span, build_input
from engine.model.invariance import Findings
from engine.model.kv_cache import KVCache

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = 16
CONTEXT = 320
SHAPES = [(4, 2, 16), (4, 4, 16), (9, 3, 64), (8, 1, 64), (16, 4, 128)]
"""(heads, kv_heads, head_dim): grouped, one query head per key-value head, the embedded model's,
all heads on one, Llama 3's. Row counts are multiplied by heads / kv_heads.
"""
DTYPES = [torch.float32, torch.bfloat16]
PRODUCTS = ["measured", "own sums"]


class Paged:
    """Random keys and values of some sequences, scattered over a cache, and queries for each
    position.
    """

    def __init__(
        self, shape: tuple[int, int, int], dtype: torch.dtype, *, products: str = "measured"
    ) -> None:
        heads, kv_heads, head_dim = shape
        product = None if products == "fast" else summed
        if products == "measured":
            product = small_products(head_dim, torch.device("cpu"), Findings(torch.device("cpu")))
        self.heads, self.kv_heads, self.head_dim, self.dtype = heads, kv_heads, head_dim, dtype
        generator = torch.Generator().manual_seed(heads * head_dim)
        blocks = CONTEXT // BLOCK
        order = [int(block) for block in torch.randperm(2 * blocks, generator=generator)]
        self.tables = [order[:blocks], order[blocks:], list(range(2 * blocks, 3 * blocks))]
        self.cache = KVCache(
            layers=1,
            num_blocks=3 * blocks,
            block_size=BLOCK,
            kv_heads=kv_heads,
            head_dim=head_dim,
            dtype=dtype,
            device=torch.device("cpu"),
        )

        def random(*size: int) -> torch.Tensor:
            return torch.randn(size, generator=generator).to(dtype)

        self.q = [random(CONTEXT, heads * head_dim) for _ in self.tables]
        self.kv = [random(CONTEXT, 2 * kv_heads * head_dim) for _ in self.tables]
        for table, kv in zip(self.tables, self.kv, strict=True):
            slots = torch.tensor([b * BLOCK + i for b in table for i in range(BLOCK)])
            self.cache.write(0, slots, kv)
        self.attention = Attention(
            heads=heads, kv_heads=kv_heads, head_dim=head_dim, product=product
        )

    def run(self, *parts: tuple[int, range]) -> list[torch.Tensor]:
        """Outputs [rows, heads * head_dim] of each (sequence, positions), computed together."""
        step = build_input(
            [Span([0] * len(r), r.start, self.tables[n], len(r)) for n, r in parts],
            block_size=BLOCK,
            groups=self.attention.groups,
            dtype=self.dtype,
            device=torch.device("cpu"),
        )
        q = torch.cat([self.q[n][r.start : r.stop] for n, r in parts])
        out = self.attention(q, self.cache, 0, step.groups)
        return list(out.split([len(r) for _, r in parts]))

    def expected(self, sequence: int, position: int) -> torch.Tensor:
        """One row by the textbook, in float64."""
        q = self.q[sequence][position].double().view(self.heads, self.head_dim)
        kv = self.kv[sequence][: position + 1].double().view(-1, 2, self.kv_heads, self.head_dim)
        k, v = kv.repeat_interleave(self.attention.groups, dim=2).unbind(1)
        weights = torch.einsum("hd,thd->ht", q, k).div(self.head_dim**0.5).softmax(1)
        return torch.einsum("ht,thd->hd", weights, v).reshape(-1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("products", [*PRODUCTS, "fast"])
def test_attention_equals_plain_softmax(
    shape: tuple[int, int, int], dtype: torch.dtype, products: str
) -> None:
    paged = Paged(shape, dtype, products=products)
    tolerance = 2e-2 if dtype is torch.bfloat16 else 1e-5
    parts = [(0, range(0, 1)), (1, range(40, 49)), (2, range(10, 100))]
    for (sequence, positions), out in zip(parts, paged.run(*parts), strict=True):
        for row, position in enumerate(positions):
            torch.testing.assert_close(
                out[row].double(), paged.expected(sequence, position), atol=tolerance, rtol=0
            )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("products", PRODUCTS)
def test_attention_gives_a_row_the_same_bits_in_any_company(
    shape: tuple[int, int, int], dtype: torch.dtype, products: str
) -> None:
    """Every row of a context, alone and in spans of each width, with and without others beside."""
    paged = Paged(shape, dtype, products=products)
    alone = torch.cat([paged.run((0, range(i, i + 1)))[0] for i in range(CONTEXT)])
    others = [(1, range(310, 312)), (2, range(7, 8))]
    for width, beside in ((1, others), (2, []), (9, others), (17, []), (48, others), (256, [])):
        spans = [range(i, min(i + width, CONTEXT)) for i in range(0, CONTEXT, width)]
        together = torch.cat([paged.run((0, span), *beside)[0] for span in spans])
        differing = (together != alone).any(1).nonzero().squeeze(1).tolist()
        assert not differing, f"spans of {width}, {len(beside)} others: rows {differing}"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_attention_reads_scattered_and_consecutive_blocks_alike(dtype: torch.dtype) -> None:
    paged = Paged((9, 3, 64), dtype)
    scattered = paged.run((0, range(200, 209)))[0]
    slots = torch.tensor([b * BLOCK + i for b in paged.tables[2] for i in range(BLOCK)])
    paged.cache.write(0, slots, paged.kv[0])
    paged.q[2] = paged.q[0]
    consecutive = paged.run((2, range(200, 209)))[0]
    assert torch.equal(consecutive, scattered)


@pytest.mark.parametrize("length", [1, 2, 3, 32, 63])
def test_halving_gives_the_same_bits_whatever_zeros_follow(length: int) -> None:
    x = torch.randn(7, length, 3, generator=torch.Generator().manual_seed(length))
    alone = halved(x, 1)
    torch.testing.assert_close(alone, x.sum(1), atol=1e-5, rtol=1e-5)
    for more in (1, 5, 64):
        longer = torch.cat([x, torch.zeros(7, more, 3)], 1)
        assert torch.equal(halved(longer, 1), alone)


def test_products_are_our_own_sums_where_the_librarys_depend_on_their_company(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of 8,192 rows in its last bit, in one number of products per call."""
    cpu = torch.device("cpu")
    true_bmm = torch.bmm

    def fickle(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        y = true_bmm(a, b)
        if len(a) == 27:
            y[5, 3, 1] *= 1 + 2**-22
        return y

    assert small_products(64, cpu, Findings(cpu, tmp_path / "clean")) is torch.bmm
    monkeypatch.setattr(attention.torch, "bmm", fickle)
    assert small_products(64, cpu, Findings(cpu, tmp_path / "planted")) is summed
    monkeypatch.undo()
    assert small_products(64, cpu, Findings(cpu, tmp_path / "planted")) is summed, (
        "it is remembered"
    )
