"""Paged attention against float64, and the same bits for a row however a step is cut."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.unit.engine.kernels.probes import ISAS, AttentionShape, faulty, probe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tests.unit.engine.kernels.probes import Probe

    Floats = NDArray[np.float32]

SHAPES = [(4, 2, 16), (4, 4, 32), (9, 3, 64), (8, 1, 64), (16, 4, 128)]
"""(heads, kv_heads, head_dim); the third is the embedded model's."""
EMBEDDED = (9, 3, 64)
EPS = 2.0**-24


class Paged:
    """Keys and values [tokens, kv_heads, head_dim] of one sequence in scattered blocks, and a query
    [heads, head_dim] for each of its tokens. What no token was written to holds NaN.
    """

    def __init__(
        self,
        kernels: Probe,
        shape: tuple[int, int, int],
        tokens: int,
        *,
        wide: bool = True,
        block_size: int = 16,
        seed: int = 0,
        order: int = 0,
    ) -> None:
        heads, kv_heads, dim = shape
        self.kernels = kernels
        self.written = 0
        random = np.random.default_rng(seed)
        self.q = (random.standard_t(3, (tokens, heads, dim)) / dim**0.5).astype(np.float32)
        self.keys = random.standard_t(3, (tokens, kv_heads, dim)).astype(np.float32)
        self.values = random.standard_t(3, (tokens, kv_heads, dim)).astype(np.float32)
        self.struct = AttentionShape(heads, kv_heads, dim, block_size, int(wide))
        blocks = -(-tokens // block_size)
        shuffled = np.random.default_rng(order).permutation(2 * blocks)
        self.table = shuffled[:blocks].astype(np.int32)
        size = 2 * blocks * kv_heads * 2 * block_size * dim
        # All ones is NaN in both formats.
        self.cache = np.full(size * (4 if wide else 2), 0xFF, np.uint8)

    def write(self, tokens: int) -> None:
        """The first `tokens` keys and values go into the cache."""
        self.kernels.call(
            "kv_write",
            ctypes.byref(self.struct),
            self.cache,
            self.table,
            self.written,
            tokens,
            self.keys,
            self.values,
        )
        self.written = tokens

    def attend(self, start: int, rows: int) -> Floats:
        """What tokens start … start + rows - 1 see, as if they were the newest ones."""
        self.write(start + rows)
        q = np.ascontiguousarray(self.q[start : start + rows])
        out = np.full_like(q, np.nan)
        scores = np.full(8 * (start + rows + 16), np.nan, np.float32)
        self.kernels.call(
            "attend", ctypes.byref(self.struct), self.cache, self.table, start, rows, q, out, scores
        )
        return out

    def exact(self, row: int) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        """What a token sees, the size of the summands, and its scores' size, in float64."""
        group = self.struct.heads // self.struct.kv_heads
        keys = np.repeat(self._stored(self.keys[: row + 1]), group, axis=1)
        values = np.repeat(self._stored(self.values[: row + 1]), group, axis=1)
        q = self.q[row].astype(np.float64)
        scores = np.einsum("hd,thd->ht", q, keys)
        size = np.einsum("hd,thd->ht", np.abs(q), np.abs(keys)).max()
        weights = np.exp(scores - scores.max(1, keepdims=True))
        weights /= weights.sum(1, keepdims=True)
        return (
            np.einsum("ht,thd->hd", weights, values),
            np.einsum("ht,thd->hd", weights, np.abs(values)),
            float(size),
        )

    def _stored(self, values: Floats) -> NDArray[np.float64]:
        if self.struct.wide:
            return values.astype(np.float64)
        bits = values.view(np.uint32)
        rounded = (bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
        return rounded.view(np.float32).astype(np.float64)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_attention_is_right_to_the_bits_of_its_format(
    isa: str, shape: tuple[int, int, int], wide: bool
) -> None:
    """A score errs by head_dim * eps * sum |q k|, an exponential by that much relatively and two
    units more, and a sum of n weighted values by n * eps of their size.
    """
    paged = Paged(probe(isa), shape, 200, wide=wide)
    out = paged.attend(0, 200)
    for row in (0, 1, 15, 16, 17, 100, 199):
        exact, size, score_size = paged.exact(row)
        relative = (2 * shape[2] * score_size + 2 * (row + 1) + 16) * EPS
        assert (np.abs(out[row] - exact) <= relative * size).all()


@pytest.mark.parametrize("isa", ISAS)
def test_attention_is_right_far_into_a_text(isa: str) -> None:
    paged = Paged(probe(isa), EMBEDDED, 2000, wide=False)
    out = paged.attend(1996, 4)
    for row in range(4):
        exact, size, score_size = paged.exact(1996 + row)
        relative = (2 * 64 * score_size + 2 * 2000 + 16) * EPS
        assert (np.abs(out[row] - exact) <= relative * size).all()


def cut_up(paged: Paged, start: int, end: int, widths: list[int]) -> Floats:
    """Rows start … end - 1 in spans of these widths, again and again."""
    parts: list[Floats] = []
    at = turn = 0
    while start + at < end:
        width = min(widths[turn % len(widths)], end - start - at)
        parts.append(paged.attend(start + at, width))
        at += width
        turn += 1
    return np.concatenate(parts)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_row_has_the_same_bits_in_spans_of_any_width(
    isa: str, shape: tuple[int, int, int], wide: bool
) -> None:
    """Widths 1 to 17 are drafts, wider ones chunks of a prefill. 258 rows of heads * head_dim
    outputs: a fault in 1.3e-4 of them is missed with probability (1 - 1.3e-4)^(258 * 64) = 0.12 in
    the smallest shape and less than e^-19 in the embedded model's, for each width.
    """
    whole = Paged(probe(isa), shape, 258, wide=wide).attend(0, 258)
    few = [1, 2, 9, 17] if isa == "portable" else list(range(1, 18))
    for widths in [*([width] for width in few), [64], [100, 1, 57], [256, 2]]:
        paged = Paged(probe(isa), shape, 258, wide=wide)
        again = cut_up(paged, 0, 258, widths)
        assert np.array_equal(whole.view(np.uint32), again.view(np.uint32)), widths


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("block_size", [16, 32, 64])
def test_row_has_the_same_bits_in_any_layout_of_blocks(wide: bool, block_size: int) -> None:
    usual = Paged(probe(), EMBEDDED, 2000, wide=wide).attend(1900, 100)
    for order in (1, 2):
        paged = Paged(probe(), EMBEDDED, 2000, wide=wide, block_size=block_size, order=order)
        other = cut_up(paged, 1900, 2000, [9, 1, 30])
        assert np.array_equal(usual.view(np.uint32), other.view(np.uint32))


@pytest.mark.parametrize("isa", ISAS[1:])
@pytest.mark.parametrize("shape", SHAPES)
def test_instruction_sets_give_the_same_bits(isa: str, shape: tuple[int, int, int]) -> None:
    best = Paged(probe(), shape, 300, wide=False).attend(100, 200)
    other = Paged(probe(isa), shape, 300, wide=False).attend(100, 200)
    assert np.array_equal(best.view(np.uint32), other.view(np.uint32))


def test_cut_test_finds_a_sum_whose_order_depends_on_the_rows_beside() -> None:
    """As a kernel would have it that picks its way by the number of rows."""
    wrong = faulty(
        ISAS[0],
        "attention.h",
        "    for (int t = 0; t < o->tokens; t += a->block_size) {\n",
        "    for (int at = 0; at < o->tokens; at += a->block_size) {\n"
        "        int last = (o->tokens - 1) / a->block_size * a->block_size;\n"
        "        int t = R < 4 ? at : last - at;\n",
    )
    whole = Paged(wrong, EMBEDDED, 100).attend(0, 100)
    alone = cut_up(Paged(wrong, EMBEDDED, 100), 0, 100, [1])
    assert not np.array_equal(whole.view(np.uint32), alone.view(np.uint32))


@pytest.mark.parametrize("isa", ISAS)
def test_query_that_is_no_number_sees_no_numbers(isa: str) -> None:
    paged = Paged(probe(isa), EMBEDDED, 40)
    paged.q[39, 0, 5] = np.nan
    paged.q[38, 1, :] = np.inf
    out = paged.attend(36, 4)
    assert np.isfinite(out[:2]).all()
    assert np.isnan(out[3, 0]).all() and np.isfinite(out[3, 1:]).all()
    assert np.isnan(out[2, 1]).all()
