from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from engine import doctor
from engine.config import EngineConfig
from engine.kernels.build import NoKernelsError

if TYPE_CHECKING:
    from pathlib import Path


def finding(about: str, config: EngineConfig | None = None) -> doctor.Finding:
    return next(each for each in doctor.examine(config or EngineConfig()) if each.about == about)


@pytest.mark.parametrize(("kernels", "state"), [("auto", "lost"), ("native", "broken")])
def test_doctor_says_what_is_lost_without_a_compiler(
    kernels: str, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> list[str]:
        raise NoKernelsError("no C compiler")

    monkeypatch.setattr(doctor, "compiler", none)
    found = finding("compiler", EngineConfig(kernels=kernels))  # type: ignore[arg-type]
    assert (found.state, found.found) == (state, "no C compiler")
    assert "gcc" in found.mend


def test_doctor_names_what_the_processor_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "usable_isas", lambda: ["avx2", "portable"])
    found = finding("processor")
    assert found.state == "lost"
    assert "avx512_vnni" in found.mend


def test_doctor_finds_more_threads_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    def two(_pid: int) -> set[int]:
        return {0, 1}

    monkeypatch.setattr(os, "sched_getaffinity", two)
    assert finding("cores", EngineConfig(threads=2)).state == "ok"
    assert finding("cores", EngineConfig(threads=3)).state == "lost"


@pytest.mark.parametrize(
    ("container_mib", "state"), [("max", "ok"), (str(900 << 20), "ok"), (str(800 << 20), "broken")]
)
def test_doctor_weighs_what_is_needed_against_machine_and_container(
    container_mib: str, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = tmp_path / "memory.max"
    limit.write_text(container_mib)
    monkeypatch.setattr(doctor, "CGROUP_LIMITS", (str(limit),))
    monkeypatch.setattr(doctor, "LIBRARIES_MIB", 600)
    config = EngineConfig(model=str(tmp_path), kv_memory_mib=256)
    assert finding("memory", config).state == state


def test_doctor_looks_for_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert finding("model", EngineConfig(model=str(tmp_path / "none"))).state == "broken"
    (tmp_path / "config.json").touch()
    assert finding("model", EngineConfig(model=str(tmp_path))).state == "ok"
    monkeypatch.setattr(doctor, "embedded_folder", lambda: tmp_path / "none")
    assert finding("model").mend == "wetink pull"


def test_doctor_looks_where_things_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(_path: Path, _mode: int) -> bool:
        return False

    monkeypatch.setattr(os, "access", nowhere)
    assert finding("cache").state == "broken"


def test_fields_are_those_the_gateway_reads() -> None:
    from gateway.doctor import Finding

    assert doctor.Finding.__struct_fields__ == Finding.__struct_fields__
