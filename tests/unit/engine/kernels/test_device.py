# pyright: reportUnknownMemberType=false
# torch declares some of its types in part only.
"""The reference kernels: right, and the same for a row in any company."""

from __future__ import annotations

import pytest
import torch

from engine.kernels.device import Reference
from engine.model.attention import small_products
from engine.model.invariance import Findings
from tests.unit.engine.kernels.cuda.cases import case, in_double, shape_of

CPU = torch.device("cpu")
SPANS = [(1, 40), (5, 0), (3, 200), (19, 33), (1, 0)]


@pytest.mark.parametrize("heads", [(4, 4, 16), (6, 2, 24), (8, 1, 16)])
def test_rows_attend_to_what_their_sequence_has_said_so_far(heads: tuple[int, int, int]) -> None:
    shape = shape_of(*heads)
    kernels = Reference(shape, torch.bmm, tile_rows=4)
    given = case(shape, SPANS, tile_rows=4, filling=3)
    found = kernels.attend(given.q, given.layer, given.tiles)
    rows = sum(rows for rows, _ in SPANS)
    torch.testing.assert_close(found[:rows].double(), in_double(shape, given), atol=1e-5, rtol=1e-5)
    assert found.isfinite().all()


def test_a_row_has_the_same_bits_alone_and_in_a_long_step() -> None:
    shape = shape_of(4, 2, 16)
    kernels = Reference(shape, small_products(16, CPU, Findings(CPU)), tile_rows=4)
    together = case(shape, SPANS, tile_rows=4, filling=9)
    found = kernels.attend(together.q, together.layer, together.tiles)
    first = case(shape, SPANS[:1], tile_rows=4)
    alone = kernels.attend(first.q, first.layer, first.tiles)
    assert torch.equal(alone[0], found[0])


def test_places_that_hold_nothing_are_not_looked_at() -> None:
    """As if the sequence began behind them."""
    shape = shape_of(4, 2, 16)
    kernels = Reference(shape, torch.bmm, tile_rows=4)
    given = case(shape, [(2, 40)], tile_rows=4, filling=2)
    unseen = 16
    found = kernels.attend(given.q, given.layer, given.tiles, unseen=unseen)
    behind = given.tiles._replace(
        visible=given.tiles.visible - unseen, tables=given.tiles.tables[:, 1:]
    )
    wanted = kernels.attend(given.q, given.layer, behind)
    torch.testing.assert_close(found[:2], wanted[:2])
    assert not torch.equal(found[:2], kernels.attend(given.q, given.layer, given.tiles)[:2])
    assert found.isfinite().all()
