from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

from gateway import cli
from gateway.config import GatewayConfig
from gateway.settings.command import problems_of, shown

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_operator_sees_every_mistake_of_a_file_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wetink.toml"
    path.write_text(
        "[server]\nprot = 1\nport = 70000\nallowed_origins = ['https://a.test/']\n"
        "[limits]\nlive_streams = 3\n[sever]\nx = 1\n"
        "[engine]\ndtype = 'float8'\n[policies.profiles]\nx = { kind = 'magic' }\n"
    )
    assert cli.main(["config", "check", str(path)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert all(line.startswith(f"{path}: ") for line in said)
    for words in (
        "server.prot is unknown; did you mean server.port?",
        "server.port must be an integer of at least 0 and at most 65535, not 70000",
        "server.allowed_origins: ",
        "sever is unknown; did you mean server?",
        "engine.dtype: ",
        "policies.profiles.x: ",
    ):
        assert sum(words in line for line in said) == 1, words
    assert len(said) == 6


def test_operator_is_told_that_a_file_is_fine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wetink.toml"
    path.write_text("[server]\nport = 0\n[engine]\nthreads = 1\n")
    assert cli.main(["config", "check", str(path)]) == 0
    assert "nothing is wrong" in capsys.readouterr().out


def test_operator_is_told_that_there_is_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "check", "/nonexistent.toml"]) == 1
    assert "/nonexistent.toml" in capsys.readouterr().err


def test_check_ends_where_a_mistake_has_no_place() -> None:
    assert len(problems_of({"policies": {"default": "nope"}})) == 1
    assert len(problems_of({"server": 5})) == 1


def test_what_is_shown_can_be_read_again_and_means_the_same(tmp_path: Path) -> None:
    path = tmp_path / "wetink.toml"
    path.write_text('[policies.profiles]\nx = { kind = "chunk", unit = "line" }\n')
    again = tmp_path / "again.toml"
    again.write_text(shown(path, {"WETINK_LIMITS_HEADERS": "7"}))
    wanted = GatewayConfig.load(path, {"limits.headers": 7}, env={})
    found = GatewayConfig.load(again, env={})
    assert (found.limits, found.policies, found.log) == (wanted.limits, wanted.policies, wanted.log)
    assert found.engine.draft_length == 8  # the engine's own default


def test_shown_values_say_where_they_come_from(tmp_path: Path) -> None:
    path = tmp_path / "wetink.toml"
    path.write_text("[server]\nport = 1\n[limits]\nheaders = 5\n")
    lines = shown(path, {"WETINK_SERVER_PORT": "2"}).splitlines()
    assert "port = 2  # from WETINK_SERVER_PORT" in lines
    assert "headers = 5  # from the file" in lines
    assert "# allowed_hosts is not set" in lines
    assert 'host = "127.0.0.1"' in lines


def test_config_command_shows_what_is_in_force(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "show"]) == 0
    assert tomllib.loads(capsys.readouterr().out)["server"]["drain_s"] == 20.0
