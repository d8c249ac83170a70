"""Kernels are built once, by what compiler there is; where that fails, the reason is told."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from engine.config import EngineConfig
from engine.engine import Engine
from engine.errors import EngineConfigError
from engine.kernels import build
from engine.kernels.build import NoKernelsError, compiler, library_path, usable_isas
from engine.kernels.library import Library, load

ROOT = Path(__file__).parents[4]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    return tmp_path / "wetink" / "kernels"


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def real_compiler() -> str:
    return " ".join(compiler())


def test_library_is_built_by_the_first_call_alone(cache: Path, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    counting = script(
        tmp_path / "counting-cc", f'echo "$@" >> {calls}\nexec {real_compiler()} "$@"'
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CC", str(counting))
        first = library_path("portable")
        assert library_path("portable") == first
    built = [line for line in calls.read_text().splitlines() if "--version" not in line]
    assert len(built) == 1
    assert [path.name for path in cache.iterdir()] == [first.name]
    assert Library(str(first)).isa == "portable"


def test_name_of_a_library_depends_on_all_that_it_is_made_of(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compiler does nothing but make the file: it is about names."""
    fake = 'if [ "$1" = --version ]; then cat {0}; exit; fi\nfor last; do :; done\n'
    fake += 'while [ "$1" != -o ]; do shift; done\ntouch "$2"'
    version = tmp_path / "version"
    version.write_text("1")
    monkeypatch.setenv("CC", str(script(tmp_path / "fake-cc", fake.format(version))))
    names = [library_path("portable")]
    assert library_path("portable") == names[0]
    version.write_text("2")
    names.append(library_path("portable"))
    monkeypatch.setattr(build, "FLAGS", [*build.FLAGS, "-g"])
    names.append(library_path("portable"))
    monkeypatch.setitem(build.ISA_FLAGS, "portable", ["-DANYTHING"])
    names.append(library_path("portable"))
    sources = tmp_path / "sources"
    sources.mkdir()
    for source in build.SOURCES.iterdir():
        (sources / source.name).write_bytes(source.read_bytes())
    monkeypatch.setattr(build, "SOURCES", sources)
    assert library_path("portable") == names[-1]
    (sources / "pool.h").write_text("changed")
    names.append(library_path("portable"))
    monkeypatch.setattr(build.platform, "machine", lambda: "riscv64")
    names.append(library_path("portable"))
    assert len(set(names)) == len(names) == len(list(cache.iterdir()))


def test_two_processes_that_build_at_once_both_have_it(cache: Path) -> None:
    code = (
        "from engine.kernels.build import library_path\n"
        "from engine.kernels.library import Library\n"
        "print(Library(str(library_path('portable'))).isa)"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate(timeout=200)[0] for process in both] == ["portable\n"] * 2
    assert len(list(cache.iterdir())) == 1


def test_missing_program_of_cc_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler -O1")
    with pytest.raises(NoKernelsError, match=r"no-such-compiler did not run: .*CC names another"):
        library_path("portable")
    assert not cache.exists()


def test_broken_compiler_is_quoted(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = 'echo "In file included from step.c" >&2\necho "step.c:1: error: bad day" >&2\nexit 1'
    monkeypatch.setenv("CC", str(script(tmp_path / "broken-cc", broken)))
    with pytest.raises(NoKernelsError, match="refused the kernels: step.c:1: error: bad day"):
        library_path("portable")
    monkeypatch.setenv("CC", str(script(tmp_path / "mute-cc", "exit 3")))
    with pytest.raises(NoKernelsError, match="no message, status 3"):
        library_path("portable")
    assert list(cache.iterdir()) == []


def test_compiler_that_hangs_is_given_up(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "COMPILE_TIMEOUT_S", 0.2)
    monkeypatch.setenv("CC", str(script(tmp_path / "slow-cc", "exec sleep 60")))
    with pytest.raises(NoKernelsError, match="did not run: .*timed out"):
        library_path("portable")
    assert not cache.exists()


def test_cache_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wetink").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(NoKernelsError, match="cannot hold the kernels"):
        library_path("portable")


def test_file_that_is_no_library_is_told(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = 'while [ "$#" != 0 ]; do if [ "$1" = -o ]; then echo no > "$2"; fi; shift; done'
    monkeypatch.setenv("CC", str(script(tmp_path / "fake-cc", fake)))
    with pytest.raises(NoKernelsError, match="cannot be loaded"):
        load.__wrapped__("portable")


def test_compiler_is_the_systems_then_the_wheels_then_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(NoKernelsError, match=r"install gcc or clang, or `pip install ziglang`"):
        compiler()
    (tmp_path / "ziglang").mkdir()
    (tmp_path / "ziglang" / "__init__.py").touch()
    assert compiler() == [sys.executable, "-m", "ziglang", "cc"]
    for name in ("clang", "gcc", "cc"):
        script(tmp_path / name, "exit 0")
        assert compiler() == [name]
    monkeypatch.setenv("CC", "  ")
    assert compiler() == ["cc"]
    monkeypatch.setenv("CC", "ccache gcc")
    assert compiler() == ["ccache", "gcc"]


def test_torch_serves_where_there_is_no_compiler(tiny: Path, tmp_path: Path) -> None:
    """In a process of its own, so that no library is loaded already; it is told to the log."""
    code = (
        "import logging, sys\n"
        "logging.basicConfig(stream=sys.stderr)\n"
        "from tests.generation import engine_on, generate, request\n"
        f"engine = engine_on({str(tiny)!r})\n"
        "assert engine.info().kernels == 'torch', engine.info()\n"
        "assert generate(engine, request('a', 'ink', max_tokens=3))['a'].ids"
    )
    empty = tmp_path / "bin"
    empty.mkdir()
    environment = os.environ | {"PATH": str(empty), "XDG_CACHE_HOME": str(tmp_path)}
    environment.pop("CC", None)
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert result.returncode == 0, result.stderr
    assert "serving with torch, which is slower: no C compiler: install gcc" in result.stderr


def test_native_kernels_that_were_asked_for_are_not_replaced(
    tiny: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    load.cache_clear()
    config = EngineConfig(model=str(tiny), kernels="native", threads=1)
    with pytest.raises(EngineConfigError, match="no-such-compiler") as caught:
        Engine(config, lambda phase, fraction: None)
    assert caught.value.param == "kernels"


def test_ready_names_the_kernels(tiny: Path) -> None:
    config = EngineConfig(model=str(tiny), threads=1, kv_blocks=40)
    engine = Engine(config, lambda phase, fraction: None)
    assert engine.info().kernels == f"native ({usable_isas()[0]})"


def test_instruction_set_is_the_best_that_the_processor_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def with_flags(*flags: str) -> list[str]:
        monkeypatch.setattr(build, "_processor_flags", lambda: set(flags))
        return usable_isas()

    narrow, wide = sorted(build.NEEDED["avx2"]), sorted(build.NEEDED["avx512-vnni"])
    assert with_flags(*wide) == ["avx512-vnni", "avx2", "portable"]
    assert with_flags(*(flag for flag in wide if flag != "avx512_vnni")) == ["avx2", "portable"]
    assert with_flags(*narrow) == ["avx2", "portable"]
    assert with_flags("sse2") == ["portable"]
    assert with_flags() == ["portable"]
