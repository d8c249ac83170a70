"""On what the figures were taken."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from pathlib import Path

import msgspec

FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "amx_bf16")
"""Those that decide which kernels run."""
SAMPLE_S = 2.0


class Machine(msgspec.Struct, frozen=True):
    processor: str
    flags: list[str]
    cores: int
    memory_gib: float
    kernel: str
    python: str
    commit: str
    idle: float
    """Share of all cores that nobody used shortly before the first server was started."""

    @property
    def line(self) -> str:
        return (
            f"{self.processor}, {self.cores} cores, {self.memory_gib:.0f} GiB,"
            f" {' '.join(self.flags)}; commit {self.commit}"
        )


def describe() -> Machine:
    cpu = _fields(Path("/proc/cpuinfo"))
    known = set(cpu.get("flags", "").split())
    memory_kib = float(_fields(Path("/proc/meminfo"))["MemTotal"].split()[0])
    return Machine(
        processor=cpu.get("model name", platform.processor()),
        flags=[flag for flag in FLAGS if flag in known],
        cores=len(os.sched_getaffinity(0)),
        memory_gib=memory_kib / (1 << 20),
        kernel=platform.release(),
        python=platform.python_version(),
        commit=_git("describe", "--always", "--dirty"),
        idle=_idle(),
    )


def _fields(path: Path) -> dict[str, str]:
    """The first value of each name."""
    result: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        result.setdefault(name.strip(), value.strip())
    return result


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _idle() -> float:
    before = _jiffies()
    time.sleep(SAMPLE_S)
    after = _jiffies()
    spent = [b - a for a, b in zip(before, after, strict=True)]
    return (spent[3] + spent[4]) / max(sum(spent), 1)


def _jiffies() -> list[int]:
    """user, nice, system, idle, iowait, irq, softirq, steal (proc(5), /proc/stat)."""
    line = Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0]
    return [int(word) for word in line.split()[1:9]]
