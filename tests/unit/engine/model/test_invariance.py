# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# torch declares some of its types in part only.
"""Row counts that are exact are found with power, remembered, and refused where there are none."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch

from engine.errors import EngineError
from engine.model import invariance
from engine.model.invariance import (
    ROWS,
    SIZES,
    UNSTABLE,
    Findings,
    common_sizes,
    heavy_tailed,
    size_classes,
    tiles,
)
from engine.model.linear import Linear

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from engine.model.invariance import RowFunction

CPU = torch.device("cpu")
WIDTH = 24
OUT = 576
RATE = 1.3e-4
"""Share of outputs with another last bit: the fault that went unnoticed."""
HASH = 0x9E3779B1


class Fickle:
    """A product that gives a small share of its outputs another last bit where `otherwise` says so
    of the number of rows; which ones depends on the row alone, as with another order of sums.
    """

    def __init__(self, otherwise: Callable[[int], bool], *, rate: float = RATE) -> None:
        self.weight = torch.randn(OUT, WIDTH, generator=torch.Generator().manual_seed(1)).double()
        self.otherwise, self.rate = otherwise, rate
        self.calls: set[int] = set()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.add(x.shape[0])
        y = (x.double() @ self.weight.T).float()
        if self.otherwise(x.shape[0]):
            bits = y.view(torch.int32)
            hit = (bits.long() * HASH) % 2**32 < int(self.rate * 2**32)
            bits.copy_(torch.where(hit, bits ^ 1, bits))
        return y


def never(rows: int) -> bool:
    return False


def found(function: RowFunction) -> list[int]:
    return size_classes(function, WIDTH, torch.float32, CPU)


def sizes(folder: Path, **functions: RowFunction) -> tuple[int, ...]:
    return common_sizes(
        {name: (function, WIDTH) for name, function in functions.items()},
        dtype=torch.float32,
        device=CPU,
        findings=Findings(CPU, folder),
        progress=lambda phase, fraction: None,
    )


def test_measurement_finds_the_former_fault_with_near_certainty() -> None:
    """And in every number of rows that has it, alone or with others."""
    chance_missed = math.exp(-RATE * OUT * ROWS)
    assert chance_missed < 1e-30
    for number, size in enumerate(SIZES):
        classes = found(Fickle(lambda rows, size=size: rows == size))
        others = {label for n, label in enumerate(classes) if n != number}
        assert len(others) == 1 and classes[number] not in others, size
    assert found(Fickle(never)) == [0] * len(SIZES)


def test_measurement_finds_one_changed_bit_in_a_thousand_rows() -> None:
    function = Fickle(lambda rows: rows == 16, rate=1.5 / (OUT * ROWS))
    assert len(set(found(function))) == 2


def test_measurement_of_a_row_that_depends_on_its_place_calls_it_unstable() -> None:
    def last_is_special(x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        if len(x) >= 32:
            y[-1] = y[-1] * (1 + 2**-20)
        return y

    assert found(last_is_special) == [0, 0, 0, UNSTABLE, UNSTABLE]


def test_measurement_of_a_row_that_depends_on_its_neighbours_calls_it_unstable() -> None:
    assert found(lambda x: x + x.sum() * 1e-3) == [UNSTABLE] * len(SIZES)


def test_largest_group_that_agrees_is_kept(tmp_path: Path) -> None:
    cases: dict[str, tuple[Callable[[int], bool], tuple[int, ...]]] = {
        "all": (never, SIZES),
        "few": (lambda rows: rows < 10, (16, 32, 64)),
        "many": (lambda rows: rows > 20, (2, 8, 16)),
        "one": (lambda rows: rows == 16, (2, 8, 32, 64)),
    }
    for name, (otherwise, expected) in cases.items():
        assert sizes(tmp_path / name, product=Fickle(otherwise)) == expected, name


def test_sizes_suit_every_function_at_once(tmp_path: Path) -> None:
    one, two = Fickle(lambda rows: rows == 2), Fickle(lambda rows: rows == 32)
    assert sizes(tmp_path, one=one, two=two) == (8, 16, 64)


def test_single_size_is_used_for_all_rows_where_all_sizes_differ(tmp_path: Path) -> None:
    def by_size(x: torch.Tensor) -> torch.Tensor:
        return x * (1 + len(x) * 2**-20)

    assert sizes(tmp_path, product=by_size) == (SIZES[0],)


def test_exact_mode_is_refused_with_what_to_do_where_rows_depend_on_each_other(
    tmp_path: Path,
) -> None:
    with pytest.raises(EngineError, match=r"\(bad\).*kernels=native.*dtype=float32.*mode=fast"):
        sizes(tmp_path, good=Fickle(never), bad=lambda x: x + x.sum() * 1e-3)


def test_findings_are_measured_once_per_machine_and_said_to_be(tmp_path: Path) -> None:
    told: list[str] = []

    def find(function: Fickle) -> tuple[int, ...]:
        return common_sizes(
            {"product": (function, WIDTH)},
            dtype=torch.float32,
            device=CPU,
            findings=Findings(CPU, tmp_path),
            progress=lambda phase, fraction: told.append(phase),
        )

    first, second = (Fickle(lambda rows: rows == 64) for _ in range(2))
    assert find(first) == find(second) == (2, 8, 16, 32)
    assert first.calls == set(SIZES)
    assert not second.calls
    assert len(told) == 1 and "once per machine" in told[0]


def test_findings_of_another_number_of_threads_or_version_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Findings(CPU, tmp_path).get("product", lambda: [1]) == [1]
    assert Findings(CPU, tmp_path).get("product", lambda: [2]) == [1]
    threads = torch.get_num_threads()
    monkeypatch.setattr(invariance.torch, "get_num_threads", lambda: threads + 1)
    assert Findings(CPU, tmp_path).get("product", lambda: [3]) == [3]
    monkeypatch.undo()
    monkeypatch.setattr(invariance.torch, "__version__", "0.0")
    assert Findings(CPU, tmp_path).get("product", lambda: [4]) == [4]
    monkeypatch.undo()
    assert Findings(CPU, tmp_path).get("product", lambda: [5]) == [1]


@pytest.mark.parametrize("content", ["", "[]", '{"machine": 1}', "\x00"])
def test_findings_that_cannot_be_read_are_measured_anew(tmp_path: Path, content: str) -> None:
    Findings(CPU, tmp_path).get("product", lambda: [1])
    (file,) = tmp_path.iterdir()
    file.write_text(content)
    assert Findings(CPU, tmp_path).get("product", lambda: [2]) == [2]
    assert Findings(CPU, tmp_path).get("product", lambda: [3]) == [2]


@pytest.mark.parametrize("allowed", [(2, 8, 16, 32, 64), (16,), (2, 64)], ids=str)
def test_tiles_cover_all_rows_in_allowed_sizes(allowed: tuple[int, ...]) -> None:
    for rows in range(1, 200):
        cut = list(tiles(rows, allowed))
        assert [start for start, _ in cut] == [sum(s for _, s in cut[:n]) for n in range(len(cut))]
        assert {size for _, size in cut} <= set(allowed)
        start, size = cut[-1]
        assert start < rows <= start + size


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(64, 64), (576, 1536)], ids=str)
def test_linear_gives_a_row_the_same_bits_in_every_size_that_was_measured(
    shape: tuple[int, int], dtype: torch.dtype, tmp_path: Path
) -> None:
    """Other rows and another weight than those of the measurement."""
    generator = torch.Generator().manual_seed(7)
    linear = Linear((torch.randn(shape, generator=generator) * 0.05).to(dtype))
    allowed = common_sizes(
        {linear.name: (linear, linear.in_features)},
        dtype=dtype,
        device=CPU,
        findings=Findings(CPU, tmp_path),
        progress=lambda phase, fraction: None,
    )
    x = heavy_tailed((512, shape[1]), generator).to(dtype)
    results = [torch.cat([linear(part) for part in x.split(size)]) for size in allowed]
    assert all(torch.equal(result, results[0]) for result in results)
