"""Compiles the CPU kernels once per machine, with the system's compiler, into the cache folder.

The library's name holds a hash of everything it depends on: source, compiler, flags, processor. So
a changed source, or another machine with the same home, builds anew, and nothing stale is loaded.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from engine.errors import EngineError
from engine.loading.pull import cache_folder

SOURCES = Path(__file__).parent / "cpu"
MAIN_SOURCE = "step.c"
FLAGS = [
    "-std=gnu11",
    "-O3",
    # A product and a sum are fused where the source says so and nowhere else: the same bits on
    # every machine.
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fvisibility=hidden",
    "-fPIC",
    "-shared",
    "-pthread",
]
ISA_FLAGS: dict[str, list[str]] = {
    "avx512-vnni": ["-DWETINK_AVX512", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq"]
    + ["-mavx512vnni", "-mavx2", "-mfma", "-mf16c"],
    "avx2": ["-DWETINK_AVX2", "-mavx2", "-mfma", "-mf16c"],
    "portable": [],
}
NEEDED: dict[str, set[str]] = {
    "avx512-vnni": {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni"}
    | {"avx2", "fma", "f16c"},
    "avx2": {"avx2", "fma", "f16c"},
    "portable": set(),
}
"""Processor flags, as Linux names them, without which an instruction set cannot run; best first."""
COMPILE_TIMEOUT_S = 120


class NoKernelsError(EngineError):
    """The CPU kernels cannot be built or loaded here; the message says why."""


def usable_isas() -> list[str]:
    """What this processor can run, best first."""
    flags = _processor_flags()
    return [isa for isa, needed in NEEDED.items() if needed <= flags]


def library_path(isa: str) -> Path:
    """The compiled library for `isa`, built by the first call. Raises `NoKernelsError`."""
    found = compiler()
    command = [*found, *FLAGS, *ISA_FLAGS[isa]]
    # A compiler may aim at the processor it runs on, so its whole description counts.
    processor = [platform.system(), platform.machine(), *sorted(_processor_flags())]
    digest = hashlib.sha256("\0".join([*command, _version(found), *processor]).encode())
    for source in sorted(SOURCES.iterdir()):
        if source.suffix in (".c", ".h"):
            digest.update(source.name.encode() + b"\0" + source.read_bytes())
    target = cache_folder() / "kernels" / f"{isa}-{digest.hexdigest()[:16]}.so"
    try:
        if not target.is_file():
            _compile(command, target)
    except OSError as error:
        raise NoKernelsError(f"{target.parent} cannot hold the kernels: {error}") from error
    return target


def _compile(command: list[str], target: Path) -> None:
    """Of several processes that build at once each makes the same file; the last one stays."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=target.parent) as scratch:
        built = Path(scratch) / target.name
        result = _run([*command, MAIN_SOURCE, "-o", str(built), "-lm"], SOURCES)
        if result.returncode:
            raise NoKernelsError(
                f"the compiler {command[0]} refused the kernels: {_reason(result)}"
            )
        built.rename(target)


def _reason(result: subprocess.CompletedProcess[str]) -> str:
    """The first error; lines before it say only where it was met."""
    lines = (result.stderr or result.stdout).strip().splitlines() or [
        f"no message, status {result.returncode}"
    ]
    return next((line for line in lines if "error" in line), lines[0])


def compiler() -> list[str]:
    """$CC, the system's compiler, or the one in the `ziglang` package. Raises `NoKernelsError`."""
    named = os.environ.get("CC", "").split()
    if named:
        return named
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            return [name]
    if importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "cc"]
    raise NoKernelsError(
        "no C compiler: install gcc or clang, or `pip install ziglang`, for the fast kernels"
    )


def _version(compiler: list[str]) -> str:
    return _run([*compiler, "--version"]).stdout


def _run(command: list[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=COMPILE_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoKernelsError(
            f"the compiler {command[0]} did not run: {error}; the variable CC names another"
        ) from error


def _processor_flags() -> set[str]:
    """Of the first processor; none where they cannot be told, which means `portable`."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return set()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return set()
    for line in text.splitlines():
        if line.startswith("flags"):
            return set(line.partition(":")[2].split())
    return set()
