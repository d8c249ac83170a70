"""The kernels compiled with their insides open (probe.c), for each instruction set, as they are or
with a fault planted.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from ctypes import Structure, c_int32
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.kernels.build import FLAGS, ISA_FLAGS, SOURCES, compiler, usable_isas
from engine.kernels.library import LANES, Library, Pool
from engine.kernels.pack import PackedWeight

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from engine.loading.weights import BlockWeight

    Floats = NDArray[np.float32]

ISAS = usable_isas()
"""Best first; "portable" is always the last."""
PROBE = Path(__file__).with_name("probe.c")


class AttentionShape(Structure):
    """attention_t of attention.h."""

    _fields_ = (
        ("heads", c_int32),
        ("kv_heads", c_int32),
        ("head_dim", c_int32),
        ("block_size", c_int32),
        ("wide", c_int32),
        ("unseen", c_int32),
    )


class Probe(Library):
    """All of the library's functions, and those of probe.c by `call`."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._all = ctypes.CDLL(path)

    def call(self, name: str, *arguments: object) -> Any:
        """Arrays go as pointers to their first element; the rest must be of ctypes, or an int."""
        function = self._all[f"probe_{name}"]
        function.restype = c_int32
        return function(*(_as_c(argument) for argument in arguments))

    def linear_rows(self, pool: Pool, packed: PackedWeight, x: Floats) -> Floats:
        """x [rows, in] times the weight: [rows, out]."""
        rows, width = x.shape
        assert width == packed.struct.in_
        padded = -(-packed.struct.out // LANES) * LANES
        y = np.full((rows, padded), np.nan, np.float32)
        x = np.ascontiguousarray(x)
        status = self.linear(
            pool.handle, ctypes.byref(packed.struct), x.ctypes.data, rows, y.ctypes.data
        )
        assert status == 0
        return y[:, : packed.struct.out]

    def packed(self, weight: BlockWeight, bias: Floats | None = None) -> PackedWeight:
        return PackedWeight(self, weight, bias)


def _as_c(argument: object) -> object:
    if isinstance(argument, np.ndarray):
        assert argument.flags.c_contiguous
        return ctypes.c_void_p(argument.ctypes.data)
    return argument


@cache
def probe(isa: str = ISAS[0]) -> Probe:
    return _build(isa, SOURCES)


def faulty(isa: str, file: str, right: str, wrong: str) -> Probe:
    """The kernels with `right`, which must be in `file` once, replaced by `wrong`."""
    with tempfile.TemporaryDirectory(prefix="wetink-fault-") as scratch:
        sources = Path(scratch) / "cpu"
        shutil.copytree(SOURCES, sources)
        text = (sources / file).read_text(encoding="utf-8")
        assert text.count(right) == 1
        (sources / file).write_text(text.replace(right, wrong), encoding="utf-8")
        return _build(isa, sources)


def _build(isa: str, sources: Path) -> Probe:
    with tempfile.TemporaryDirectory(prefix="wetink-probe-") as scratch:
        library = Path(scratch) / "probe.so"
        command = [*compiler(), *FLAGS, *ISA_FLAGS[isa], f"-I{sources}", str(PROBE)]
        subprocess.run([*command, "-o", str(library), "-lm"], check=True)
        return Probe(str(library))


@cache
def pool(isa: str = ISAS[0], threads: int = 2) -> Pool:
    return Pool(probe(isa), threads)
