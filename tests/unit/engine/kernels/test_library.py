"""The C interface as Python sees it."""

from __future__ import annotations

import ctypes
import subprocess
from typing import TYPE_CHECKING

import pytest

from engine.kernels.build import NoKernelsError, compiler
from engine.kernels.library import (
    JUDGEMENT,
    SPAN,
    Layer,
    Memory,
    Model,
    StepArguments,
    Weight,
    load,
)
from tests.unit.engine.kernels.probes import ISAS, SOURCES

if TYPE_CHECKING:
    from pathlib import Path


def test_structures_lie_in_memory_as_in_c(tmp_path: Path) -> None:
    """Sizes and offsets of every field, as the compiler has them."""
    structures = {"weight_t": Weight, "layer_t": Layer, "model_t": Model, "step_t": StepArguments}
    places: dict[str, list[tuple[str, int]]] = {
        name: [(field[0].rstrip("_"), getattr(kind, field[0]).offset) for field in kind._fields_]
        for name, kind in structures.items()
    }
    sizes = {name: ctypes.sizeof(kind) for name, kind in structures.items()}
    for name, record in (("judgement_t", JUDGEMENT), ("span_t", SPAN)):
        assert record.fields is not None
        places[name] = [(field, offset) for field, (_, offset, *_) in record.fields.items()]
        sizes[name] = record.itemsize
    checks = [
        f'_Static_assert(sizeof({name}) == {size}, "{name}");' for name, size in sizes.items()
    ]
    checks += [
        f'_Static_assert(offsetof({name}, {field}) == {offset}, "{name}.{field}");'
        for name, fields in places.items()
        for field, offset in fields
    ]
    source = tmp_path / "layout.c"
    source.write_text('#include "step.c"\n' + "\n".join(checks))
    command = [*compiler(), "-std=gnu11", "-fsyntax-only", f"-I{SOURCES}", str(source)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert len(checks) > 80


@pytest.mark.parametrize("isa", ISAS)
def test_library_says_which_instructions_it_uses(isa: str) -> None:
    assert load(isa).isa == isa


def test_memory_is_as_large_as_asked_for() -> None:
    memory = Memory(load(), 5_000_001)
    view = memory.array()
    view[:] = 7
    assert view.shape == (5_000_001,) and view.sum() == 35_000_007
    assert memory.address is not None and memory.address % 64 == 0


def test_memory_that_is_not_there_is_refused() -> None:
    with pytest.raises(NoKernelsError, match="refused"):
        Memory(load(), 1 << 62)
