"""In how many rows this machine's libraries may compute without a row depending on its company.

A BLAS picks its kernel, and with it the order of its sums, by the number of rows. So the same
token, computed alone, inside a draft or inside a prefill chunk, may differ in its last bits, and
one flipped arg-max later the text differs. Rarely: on Zen 4 the packed bfloat16 product with 1,536
inputs gives a row that is alone other bits in 1.3e-4 of its outputs, which a comparison of two rows
misses six times out of seven and which flips one arg-max in fifty over 30 layers.

So in exact mode rows are computed in a few fixed numbers only (`SIZES`; fewer rows are padded, more
are cut), and a number is used only if 1,024 rows with heavy tails came out of it, bit for bit, as
they did out of the others, each row in another place and beside other rows. Where the numbers
disagree, the largest group that agrees is kept, be it a single one; where rows depend on their
place even in that, exact mode is refused. What was found is kept in the cache folder: measuring
takes seconds, and only another processor, PyTorch or number of threads can change the outcome.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch

from engine.errors import EngineError
from engine.loading.pull import cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

log = logging.getLogger(__name__)

SIZES = (2, 8, 16, 32, 64)
"""Numbers of rows that are tried. One row alone is a kernel of its own in most libraries; beyond 64
nothing is gained over two times 64.
"""
ROWS = 1024
"""Rows compared per size: a fault in 1e-4 of 576 outputs is missed with a chance of e^-59."""
UNSTABLE = -1
FORMAT = 1
"""Of the findings' file, and of the way they are made: another number means measuring anew."""

RowFunction: TypeAlias = "Callable[[torch.Tensor], torch.Tensor]"
"""[rows, width] -> [rows, anything]; each row's result should depend on that row alone."""


class Findings:
    """What was measured here, for one device and number of threads, in a file by name."""

    def __init__(self, device: torch.device, folder: Path | None = None) -> None:
        machine = _machine(device)
        name = hashlib.sha256(json.dumps(machine).encode()).hexdigest()[:16]
        self._machine = machine
        self._path = (folder or cache_folder() / "invariance") / f"{name}.json"
        self._found: dict[str, list[int]] = {}
        try:
            content = json.loads(self._path.read_text())
            if content["machine"] == machine:
                self._found = {str(k): [int(n) for n in v] for k, v in content["found"].items()}
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError, AttributeError):
            log.warning("%s cannot be read; measuring anew", self._path)

    def get(self, name: str, measure: Callable[[], list[int]]) -> list[int]:
        """What is known about `name`, measured first if nothing is."""
        known = self._found.get(name)
        if known is None:
            known = self._found[name] = measure()
            self._write()
        return known

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def _write(self) -> None:
        """Whole or not at all; of two processes that measure at once the last one stays."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        content = json.dumps({"machine": self._machine, "found": self._found}, indent=1)
        with tempfile.NamedTemporaryFile(
            "w", dir=self._path.parent, prefix=".new-", delete=False
        ) as file:
            file.write(content)
        Path(file.name).replace(self._path)


def common_sizes(
    functions: Mapping[str, tuple[RowFunction, int]],
    *,
    dtype: torch.dtype,
    device: torch.device,
    findings: Findings,
    progress: Callable[[str, float | None], None],
) -> tuple[int, ...]:
    """Sizes, by growing number, at which every one of `functions` (by name, with its input's width)
    gives a row the same bits.

    Raises EngineError where there is none, with what can be done instead.
    """
    classes: list[list[int]] = []
    for number, (name, (function, width)) in enumerate(functions.items()):
        key = f"{name} {dtype} {device.type}"
        if key not in findings:
            progress(
                "measuring which row counts are exact (once per machine)", number / len(functions)
            )
        classes.append(
            findings.get(key, lambda f=function, w=width: size_classes(f, w, dtype, device))
        )
    groups: dict[tuple[int, ...], list[int]] = {}
    for size, labels in zip(SIZES, zip(*classes, strict=True), strict=True):
        if UNSTABLE not in labels:
            groups.setdefault(labels, []).append(size)
    if not groups:
        guilty = [n for n, found in zip(functions, classes, strict=True) if set(found) == {-1}]
        raise EngineError(
            "exact mode is not possible with torch here: a row's result depends on the rows beside"
            f" it, whatever their number ({', '.join(guilty) or 'no size suits every product'})."
            " Use the native kernels (kernels=native), dtype=float32, or mode=fast, which promises"
            " less"
        )
    # On a GPU rows are free up to dozens, and every further tile reads all weights again.
    best = max(groups.values(), key=max if device.type == "cuda" else len)
    if len(best) < len(SIZES):
        log.warning("rows are computed %s at a time: other numbers are not exact here", best)
    return tuple(best)


def size_classes(
    function: RowFunction, width: int, dtype: torch.dtype, device: torch.device
) -> list[int]:
    """Per entry of SIZES a number: equal where rows come out bit for bit alike, UNSTABLE where they
    depend on their place or their neighbours.
    """
    generator = torch.Generator().manual_seed(0)
    x = heavy_tailed((ROWS, width), generator).to(device, dtype)

    def results(size: int) -> torch.Tensor:
        order = torch.randperm(ROWS, generator=generator).to(device)
        digests = torch.empty(ROWS, dtype=torch.int64, device=device)
        for start in range(0, ROWS, size):
            rows = order[start : start + size]
            digests[rows] = _digests(function(x[rows]))
        return digests

    leaders: list[torch.Tensor] = []
    members: list[list[int]] = []
    for number, size in enumerate(SIZES):
        found = results(size)
        for label, leader in enumerate(leaders):
            if torch.equal(found, leader):
                members[label].append(number)
                break
        else:
            leaders.append(found)
            members.append([number])
    classes = [UNSTABLE] * len(SIZES)
    for label, (leader, numbers) in enumerate(zip(leaders, members, strict=True)):
        # Two sizes that agree did so with every row in another place; one alone has to show it.
        if len(numbers) > 1 or torch.equal(results(SIZES[numbers[0]]), leader):
            for number in numbers:
                classes[number] = label
    return classes


def heavy_tailed(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Like activations: mostly small, now and then a hundred times as large. float32."""
    normal = torch.randn(shape, generator=generator)
    return normal * torch.randn(shape, generator=generator).exp()


def _digests(y: torch.Tensor) -> torch.Tensor:
    """One number per row that any changed bit changes. Whole numbers modulo 2^64: the order of this
    sum does not matter. [rows, n] -> [rows] int64.
    """
    kinds = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    bits = y.contiguous().view(kinds[y.element_size()]).to(torch.int64)
    factors = torch.arange(1, 2 * bits.shape[1], 2, device=y.device) * 0x9E3779B97F4A7C1
    return (bits * factors).sum(1)


def tiles(rows: int, sizes: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """How `rows` rows are cut: (first row, size). Only the last tile has rows that do not exist."""
    start = 0
    while rows - start > sizes[-1]:
        yield start, sizes[-1]
        start += sizes[-1]
    yield start, next(size for size in sizes if size >= rows - start)


def _machine(device: torch.device) -> list[str]:
    """What decides which kernels a library picks for products on `device`."""
    wanted = ("model name", "cpu family", "model", "stepping")
    processor = [platform.machine()]
    try:
        lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
        pairs = (line.partition(":") for line in lines)
        processor += [value.strip() for key, _, value in pairs if key.strip() in wanted]
    except OSError:
        processor.append(platform.processor())
    if device.type == "cuda":
        chip = torch.cuda.get_device_properties(device)
        cuda = f"{chip.name}, {chip.multi_processor_count} SMs, CUDA {torch.version.cuda}"
    else:
        cuda = "no CUDA"
    limits = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR")
    return [
        *processor,
        cuda,
        torch.__version__,
        torch.backends.cpu.get_cpu_capability(),
        f"{torch.get_num_threads()} threads",
        *(f"{name}={os.environ.get(name, '')}" for name in limits),
        f"format {FORMAT}, {ROWS} rows, sizes {SIZES}",
    ]
