"""The `wetink` command, as it is called."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import io
import itertools
import logging
import os
import pty
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gateway import cli, engine_packages
from gateway.backends.scripted import BUILT_IN_TRACES
from gateway.telemetry.logs import OURS
from tests.unit.engine.checkpoints import write_tiny_llama

if TYPE_CHECKING:
    from collections.abc import Iterator

WETINK = Path(sys.executable).with_name("wetink")
TRACE = str(BUILT_IN_TRACES / "lighthouse.jsonl")


@pytest.fixture(autouse=True)
def log_of_this_process() -> Iterator[None]:
    """`serve` sets it up for its whole process, which is ours here."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in OURS}
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_command_names_its_subcommands(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"]):
        assert cli.main(arguments) == 0
        output = capsys.readouterr().out
        assert all(f"  {name} " in output for name in ("serve", "stream", "pull", "version"))


def test_command_refuses_what_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sreve"]) == 2
    assert "serve" in capsys.readouterr().err


def test_version_names_package_and_protocol(capsys: pytest.CaptureFixture[str]) -> None:
    version = importlib.metadata.version("wetink")
    for spelling in ("version", "--version"):
        assert cli.main([spelling]) == 0
        assert capsys.readouterr().out == f"wetink {version}, protocol 1\n"


def test_serve_says_so_when_the_port_is_taken(
    taken_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["serve", "--backend", "scripted", "--port", str(taken_port)]) == 1
    complaint = capsys.readouterr().err
    assert complaint.startswith("wetink: ")
    assert f"127.0.0.1:{taken_port}" in complaint
    assert "--port" in complaint


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (
            ["--port", "70000"],
            "wetink: --port must be an integer of at least 0 and at most 65535, not 70000\n",
        ),
        (["--config", "/nonexistent/wetink.toml"], "/nonexistent/wetink.toml"),
        (["--port", "0", "--trace", "/nonexistent.jsonl"], "/nonexistent.jsonl"),
    ],
)
def test_serve_names_the_setting_it_cannot_use(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["serve", "--backend", "scripted", *arguments]) == 1
    assert named in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "/no/such"], "'/no/such' is no model"),
        (["--threads", "0"], "threads: Expected `int` >= 1"),
    ],
)
def test_serve_says_what_its_engine_cannot_use_once_and_without_a_traceback(
    arguments: list[str], said: str
) -> None:
    done = subprocess.run(
        [WETINK, "serve", "--port", "0", "--model", "x/y", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if not line.startswith("engine: ")]
    assert len(lines) == 1
    assert lines[0].startswith(f"wetink: {said}")


@pytest.mark.parametrize("command", [["serve", "--port", "0"], ["pull"]])
def test_command_says_how_to_install_the_engine_when_it_is_missing(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engine_packages, "NAMES", ("torch_that_is_not_there",))
    assert cli.main(command) == 1
    assert "pip install 'wetink-gateway[engine]'" in capsys.readouterr().err


def test_command_loads_no_torch() -> None:
    modules = "gateway.cli, gateway.server, gateway.backends.local"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("needs_key", [False, True])
def test_served_curl_line_streams_when_it_is_pasted(
    needs_key: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path)}
    if needs_key:
        file = tmp_path / "wetink" / "keys.json"
        assert cli.main(["keys", "add", "me", "--file", str(file)]) == 0
        env["WETINK_KEY"] = capsys.readouterr().out.strip()
    command = [WETINK, "serve", "--trace", TRACE, "--port", "0"]
    serving = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    assert serving.stdout is not None
    try:
        output = ""
        for line in serving.stdout:
            output += line
            if line.startswith("Ctrl-C"):
                break
        [curl] = re.findall(r"^  (curl .*)$", output, re.MULTILINE)
        [stream] = re.findall(r"^  (\S*wetink stream .*)$", output, re.MULTILINE)
        frames = subprocess.run(
            ["bash", "-c", curl], capture_output=True, text=True, check=True, env=env
        ).stdout
        text = subprocess.run(
            ["bash", "-c", stream], capture_output=True, text=True, check=True, env=env
        ).stdout
    finally:
        serving.terminate()
        serving.wait()
        serving.stdout.close()
    assert 'data: {"type":"open"' in frames
    assert 'data: {"type":"finish"' in frames
    assert text.startswith("A lighthouse is a tower")


@pytest.mark.slow
def test_serve_announces_the_drafters_and_the_default(tmp_path: Path) -> None:
    write_tiny_llama(tmp_path / "tiny", context=128)
    model = str(tmp_path / "tiny")
    options = ["--port", "0", "--model", model, "--draft-model", model, "--kv-memory-mib", "16"]
    serving = subprocess.Popen([WETINK, "serve", *options], stdout=subprocess.PIPE, text=True)
    assert serving.stdout is not None
    with serving.stdout:
        output = list(itertools.takewhile(lambda line: "Ctrl-C" not in line, serving.stdout))
        serving.terminate()
        serving.wait()
    assert "Drafters: model, ngram, suffix; default: model\n" in output


def test_loading_bar_says_each_phase_once_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bar = cli.LoadingBar()
    for phase, fraction in [("libraries", None), ("weights", 0.5), ("weights", 1.0)]:
        bar(phase, fraction)
    assert capsys.readouterr().err == "engine: libraries\nengine: weights\n"


def test_loading_bar_fills_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal, os.fdopen(ours, "rb", buffering=0) as screen:
        monkeypatch.setattr(sys, "stderr", terminal)
        bar = cli.LoadingBar()
        bar("libraries", None)
        bar("weights", 0.5)
        shown = ""
        while "50%" not in shown:
            shown += screen.read(io.DEFAULT_BUFFER_SIZE).decode()
    assert "engine: libraries" in shown
    assert f"[{'#' * 15}{'.' * 15}] weights 50%" in shown


def test_loading_is_a_line_of_the_log_per_phase_where_programs_read_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "wetink.engine")
    log = cli.LoadingLog()
    for phase, fraction in [("libraries", None), ("weights", 0.5), ("weights", 1.0)]:
        log(phase, fraction)
    assert caplog.messages == ["libraries", "weights"]


def test_serve_says_which_certificate_it_cannot_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    monkeypatch.setenv("WETINK_SERVER_TLS_CERTIFICATE", str(broken))
    monkeypatch.setenv("WETINK_SERVER_TLS_KEY", "/nonexistent/key.pem")
    assert cli.main(["serve", "--backend", "scripted", "--port", "0"]) == 1
    complaint = capsys.readouterr().err
    assert str(broken) in complaint
    assert "/nonexistent/key.pem" in complaint


def test_serve_says_how_to_install_what_traces_need(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WETINK_TELEMETRY_TRACES", "true")

    def nothing(_name: str) -> None:
        return None

    monkeypatch.setattr(importlib.util, "find_spec", nothing)
    assert cli.main(["serve", "--backend", "scripted", "--port", "0"]) == 1
    assert "pip install 'wetink-gateway[otel]'" in capsys.readouterr().err


def test_serve_calls_a_setting_by_its_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "--demo", "--host", "0.0.0.0", "--port", "0"]) == 1
    assert capsys.readouterr().err.startswith("wetink: --demo: whoever reaches the page")


def test_serve_that_is_stopped_while_it_waits_announces_nothing() -> None:
    command = [WETINK, "serve", "--upstream", "http://127.0.0.1:9/v1", "--no-ahead", "--port", "0"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as serving:
        assert serving.stderr is not None
        next(line for line in serving.stderr if "trying until it answers" in line)
        serving.terminate()
        said, _ = serving.communicate()
    assert said == ""
