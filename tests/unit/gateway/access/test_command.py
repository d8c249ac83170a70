"""`wetink keys`, as it is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway import cli
from gateway.access import Allowance
from gateway.access import keys as stored
from gateway.access.keys import Scope
from protocol.requests import Shape

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def call(file: Path, *arguments: str) -> int:
    return cli.main(["keys", *arguments, "--file", str(file)])


def test_operator_is_shown_a_key_once(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(file, "add", "alice") == 0
    shown = capsys.readouterr()
    presented = stored.parse(shown.out.strip())
    keys = stored.read(file)
    assert presented is not None
    assert keys is not None
    assert stored.is_secret_of(keys[0], presented.secret)
    assert "shown once" in shown.err
    assert "SIGHUP" in shown.err
    call(file, "list")
    listed = capsys.readouterr().out
    assert presented.id in listed
    assert "alice  everything" in listed
    assert presented.secret not in listed


def test_operator_gives_a_key_a_scope_and_limits(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scope = ["--models", "a", "b", "--profiles", "tts", "--policies", "hold", "--priority", "-3"]
    scope += ["--shape", "2048,50"]
    limits = ["--limit", "streams=2", "--limit", "tokens_per_minute=1000"]
    assert call(file, "add", "phone", *scope, *limits) == 0
    keys = stored.read(file)
    assert keys is not None
    assert keys[0].scope == Scope(
        models=["a", "b"],
        profiles=["tts"],
        policies=["hold"],
        priority=-3,
        shape=Shape(pad=2048, tick_ms=50),
    )
    assert keys[0].limits == Allowance(streams=2, tokens_per_minute=1000)
    call(file, "list")
    words = "models=a,b policies=hold profiles=tts priority=-3 shape=2048,50"
    words += " streams=2 tokens_per_minute=1000"
    assert words in capsys.readouterr().out


def test_operator_makes_a_key_for_monitoring(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call(file, "add", "prometheus", "--monitoring")
    (key,) = stored.read(file) or []
    assert key.scope == Scope(monitoring=True)
    call(file, "list")
    assert "prometheus  monitoring\n" in capsys.readouterr().out


@pytest.mark.parametrize("by", ["name", "id"])
def test_operator_revokes_a_key(file: Path, by: str) -> None:
    call(file, "add", "alice")
    call(file, "add", "bob")
    alice, bob = stored.read(file) or []
    assert call(file, "revoke", getattr(alice, by)) == 0
    assert stored.read(file) == [bob]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["add", "alice"], "a key called 'alice' already"),
        (["add", ""], "name must be a string of at least 1"),
        (["add", "x", "--priority", "101"], "--priority must be an integer of at least -100"),
        (["add", "x", "--shape", "1,50"], "shape.pad must be an integer of at least 1024"),
        (["add", "x", "--limit", "streams"], "--limit streams: it must be NAME=N"),
        (["add", "x", "--limit", "sterams=1"], "one of streams, attachments, connections"),
        (["add", "x", "--limit", "streams=-1"], "--limit streams=-1"),
        (["add", "x", "--limit", "streams=0"], "--limit streams must be an integer of at least 1"),
        (["revoke", "carol"], "no key 'carol'"),
    ],
)
def test_operator_is_told_what_cannot_be_done(
    file: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    call(file, "add", "alice")
    before = file.read_bytes()
    capsys.readouterr()
    assert call(file, *arguments) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith("wetink: ")
    assert said in shown.err
    assert shown.out == ""
    assert file.read_bytes() == before


def test_operator_is_told_that_there_are_no_keys(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(file, "list") == 0
    assert f"There are no keys in {file}" in capsys.readouterr().err
