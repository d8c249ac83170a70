# pyright: reportUnknownMemberType=false, reportMissingImports=false
# torch declares some of its types in part only; Triton is not there everywhere.
"""The Triton kernels, by Triton's own interpreter where there is no GPU (`make test-kernels`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from engine.kernels.device import Reference
from engine.sampling.noise import NoiseSource
from tests.unit.engine.kernels.cuda.cases import case, in_double, shape_of

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HALF = torch.bfloat16 if DEVICE == "cuda" else torch.float16
"""The interpreter keeps bfloat16 as whole numbers and multiplies them as such."""

if TYPE_CHECKING:
    from engine.kernels.cuda.kernels import TritonKernels
    from engine.model.llama import ModelShape

pytestmark = [
    pytest.mark.triton,
    # Triton 3.6's interpreter makes Python numbers of arrays in a way that numpy is giving up.
    pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning"),
]

SPANS = [(1, 300), (5, 0), (3, 130), (19, 33), (1, 0), (2, 127)]
"""Over several pieces of the context, at their borders, and within one."""
SHAPES = [(4, 4, 16), (9, 3, 64), (8, 2, 80), (32, 2, 32)]


def made(shape: ModelShape, *, rows: int = 64) -> TritonKernels:
    from engine.kernels.cuda.kernels import TritonKernels

    return TritonKernels(
        shape, block_size=16, context=512, most_rows=rows, device=torch.device(DEVICE)
    )


@pytest.mark.parametrize("heads", SHAPES)
def test_rows_attend_to_what_their_sequence_has_said_so_far(heads: tuple[int, int, int]) -> None:
    shape = shape_of(*heads)
    kernels = made(shape)
    given = case(shape, SPANS, tile_rows=kernels.tile_rows, filling=3, device=DEVICE)
    found = kernels.attend(given.q, given.layer, given.tiles)
    rows = sum(rows for rows, _ in SPANS)
    torch.testing.assert_close(found[:rows].double(), in_double(shape, given), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", {torch.float16, HALF})
def test_half_precision_is_as_good_as_its_rounding(dtype: torch.dtype) -> None:
    shape = shape_of(9, 3, 64)
    kernels = made(shape)
    given = case(shape, SPANS, tile_rows=kernels.tile_rows, dtype=dtype, device=DEVICE)
    found = kernels.attend(given.q, given.layer, given.tiles)
    tolerance = 2 * torch.finfo(dtype).eps
    torch.testing.assert_close(
        found.double(), in_double(shape, given), atol=4 * tolerance, rtol=tolerance
    )


@pytest.mark.parametrize("dtype", [torch.float32, HALF])
def test_a_row_has_the_same_bits_alone_and_in_a_long_step(dtype: torch.dtype) -> None:
    shape = shape_of(9, 3, 64)
    kernels = made(shape)
    together = case(
        shape, SPANS, tile_rows=kernels.tile_rows, dtype=dtype, filling=9, device=DEVICE
    )
    found = kernels.attend(together.q, together.layer, together.tiles)
    at = 0
    for number, (rows, before) in enumerate(SPANS):
        for row in range(rows):
            # The same row as a step of its own: its sequence is there, nothing else is.
            visible = before + row + 1
            tiles = together.tiles._replace(
                first=together.tiles.first[:1] * 0,
                rows=together.tiles.rows[:1] * 0 + 1,
                table=together.tiles.table[:1] * 0 + number,
                visible=together.tiles.visible[:1] * 0 + visible,
            )
            alone = kernels.attend(together.q[at : at + 1], together.layer, tiles)
            assert torch.equal(alone[0], found[at]), (number, row)
            at += 1


def test_kernel_and_reference_agree() -> None:
    shape = shape_of(6, 2, 48)
    kernels = made(shape)
    given = case(shape, SPANS, tile_rows=kernels.tile_rows, filling=2, device=DEVICE)
    wanted = Reference(shape, torch.bmm, tile_rows=kernels.tile_rows)
    torch.testing.assert_close(
        kernels.attend(given.q, given.layer, given.tiles)[:31],
        wanted.attend(given.q, given.layer, given.tiles)[:31],
        atol=2e-5,
        rtol=1e-5,
    )


def test_kernel_and_reference_leave_out_the_same_places() -> None:
    shape = shape_of(6, 2, 48)
    kernels = made(shape)
    given = case(shape, [(1, 300), (3, 1)], tile_rows=kernels.tile_rows, filling=2, device=DEVICE)
    wanted = Reference(shape, torch.bmm, tile_rows=kernels.tile_rows)
    torch.testing.assert_close(
        kernels.attend(given.q, given.layer, given.tiles, unseen=1)[:4],
        wanted.attend(given.q, given.layer, given.tiles, unseen=1)[:4],
        atol=2e-5,
        rtol=1e-5,
    )


@pytest.mark.parametrize("vocab", [7, 1024, 5003])
def test_tokens_are_those_of_the_samplers_noise(vocab: int) -> None:
    kernels = made(shape_of(4, 2, 16))
    seeds, positions = [0, 2**63 - 1, 12345], [0, 7, 2**33]
    x = torch.randn(3, vocab, generator=torch.Generator().manual_seed(2))
    x[1, : vocab // 2] = float("-inf")
    found = kernels.noisy_choice(
        x.to(DEVICE), torch.tensor(seeds, device=DEVICE), torch.tensor(positions, device=DEVICE)
    )
    wanted = [
        int((x[n].numpy() + NoiseSource(seeds[n], vocab).at(positions[n])).argmax())
        for n in range(3)
    ]
    assert found.tolist() == wanted
