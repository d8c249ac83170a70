"""Every piece of every job is done once and before the job ends, however little the threads get to
run.

The stress (probe.c) runs jobs of random sizes, each piece marking its place with the job's number;
a piece that is lost, done twice, or done late by a helper of an earlier job shows as a wrong mark.
"""

from __future__ import annotations

import os
import subprocess
import sys
from ctypes import c_void_p
from pathlib import Path

import numpy as np
import pytest

from engine.kernels.build import NoKernelsError
from engine.kernels.library import Pool
from tests.unit.engine.kernels.probes import ISAS, Probe, faulty, probe

ROOT = Path(__file__).parents[4]
MOST_THREADS = 16


def faults(
    kernels: Probe, threads: int, jobs: int, pieces: int, work: int, naps: int = 0, seed: int = 1
) -> int:
    helped = np.zeros(MOST_THREADS, np.uint8)
    pool = Pool(kernels, threads)
    found = kernels.call("jobs", c_void_p(pool.handle), jobs, pieces, work, naps, seed, helped)
    pool.close()
    assert not helped[threads:].any()
    assert helped[0]
    return found


FOUND = 42
"""Exit status of a process that has found a fault."""


def tasks() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 7, 16])
@pytest.mark.parametrize(("pieces", "jobs"), [(1, 2000), (2, 30_000), (7, 20_000), (3000, 300)])
def test_pool_does_each_piece_once(threads: int, pieces: int, jobs: int) -> None:
    assert faults(probe(), threads, jobs, pieces, work=30) == 0


def test_pool_wakes_helpers_that_fell_asleep() -> None:
    """2 ms between some steps: helpers sleep after about 50 µs."""
    assert faults(probe(), 4, 3000, 20, work=100, naps=300) == 0


def test_pool_goes_on_with_more_threads_than_cores_and_busy_neighbours() -> None:
    """Eight threads on one core, beside two loops that never rest, in a process of its own."""
    core = min(os.sched_getaffinity(0))
    code = (
        f"import os; os.sched_setaffinity(0, {{{core}}})\n"
        "from tests.unit.engine.kernels.test_pool import faults, probe\n"
        "raise SystemExit(faults(probe(), 8, 1000, 40, work=200, naps=20))"
    )
    loop = f"import os; os.sched_setaffinity(0, {{{core}}})\nwhile True: pass"
    neighbours = [subprocess.Popen([sys.executable, "-c", loop]) for _ in range(2)]
    try:
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=100)
    finally:
        for neighbour in neighbours:
            neighbour.kill()
            neighbour.wait()


def test_stress_finds_a_caller_that_does_not_wait() -> None:
    """In a process of its own: helpers then write where nothing of theirs is any more."""
    code = (
        "from tests.unit.engine.kernels.test_pool import faults, without_waiting\n"
        "kernels = without_waiting()\n"
        "found = any(faults(kernels, 4, 20_000, 9, work=2000, seed=seed) for seed in range(20))\n"
        "raise SystemExit(FOUND if found else 0)"
    ).replace("FOUND", str(FOUND))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, timeout=100)
    # Dying of a signal is finding it, too.
    assert done.returncode == FOUND or done.returncode < 0


def without_waiting() -> Probe:
    return faulty(
        ISAS[0], "pool.h", "    wait_for_pieces(p, (uint32_t)pieces);\n", "    (void)0;\n"
    )


def test_pools_that_end_leave_no_thread_and_no_memory() -> None:
    kernels = probe()
    for _ in range(50):
        Pool(kernels, 4).close()
    before, pages = tasks(), resident_pages()
    for number in range(1000):
        pool = Pool(kernels, 4)
        if number % 10 == 0:
            helped = np.zeros(MOST_THREADS, np.uint8)
            assert kernels.call("jobs", c_void_p(pool.handle), 5, 9, 10, 0, number, helped) == 0
        pool.close()
        pool.close()
    assert tasks() == before
    # A pool with its threads' bookkeeping takes more than a quarter of a page: 1,000 of them show.
    assert resident_pages() - pages < 250


def resident_pages() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1])


@pytest.mark.parametrize("threads", [0, -1])
def test_pool_refuses_to_be_empty(threads: int) -> None:
    with pytest.raises(NoKernelsError, match="threads"):
        Pool(probe(), threads)
