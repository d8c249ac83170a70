"""`wetink serve` as it is called: where it listens, whom it lets in, and what SIGHUP changes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import httpx
import pytest

from gateway import cli
from gateway.access import keys as stored
from gateway.app import create_app
from gateway.config import GatewayConfig
from tests.server.gateways import PATIENCE_S
from tests.server.keyed import bearer
from tests.unit.gateway.doubles import HandBackend

if TYPE_CHECKING:
    from collections.abc import Generator

WETINK = Path(sys.executable).with_name("wetink")


class Process(NamedTuple):
    """A gateway in a process of its own."""

    url: str
    pid: int
    log: Log

    def get(self, path: str, key: str | None = None) -> httpx.Response:
        headers = {} if key is None else bearer(key)
        return httpx.get(self.url + path, headers=headers, trust_env=False, timeout=PATIENCE_S)

    def hang_up(self) -> str:
        """Sends SIGHUP; what the log says of it."""
        self.log.forget()
        os.kill(self.pid, signal.SIGHUP)
        return self.log.wait_for("reload")


class Log:
    """Lines that a process writes, as they come."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lines: list[str] = []
        self._changed = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def forget(self) -> None:
        with self._changed:
            self._lines.clear()

    def wait_for(self, word: str) -> str:
        with self._changed:
            found = self._changed.wait_for(lambda: self._with(word), PATIENCE_S)
            assert found, f"no {word!r} in {self._lines}"
            return self._with(word)[0]

    def _with(self, word: str) -> list[str]:
        return [line for line in self._lines if word in line]

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            with self._changed:
                self._lines.append(line)
                self._changed.notify()


@contextmanager
def gateway(*arguments: str) -> Generator[Process]:
    command = [WETINK, "serve", "--backend", "scripted", "--port", "0", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            log = Log(process)
            url = next(line.split()[-1] for line in process.stdout if "http" in line)
            yield Process(url, process.pid, log)
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=PATIENCE_S)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def add(file: Path, name: str, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    """A new key, by the command."""
    assert cli.main(["keys", "add", name, "--file", str(file), *more]) == 0
    return capsys.readouterr().out.strip()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "localhost.localdomain"])
def test_gateway_does_not_listen_for_everybody_without_keys(
    host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["serve", "--backend", "scripted", "--port", "0", "--host", host]) == 1
    complaint = capsys.readouterr().err
    assert complaint.startswith(f"wetink: server.host: whoever reaches {host} could start, read")
    assert "`wetink keys add NAME`" in complaint
    assert "--allow-anyone" in complaint


def test_gateway_does_not_begin_where_nobody_could_come_in(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    serve = ["serve", "--backend", "scripted", "--port", "0", "--keys-file", str(file)]
    assert cli.main(serve) == 1
    assert f"`wetink keys add NAME --file {file}` makes it" in capsys.readouterr().err
    stored.write(file, [])
    assert cli.main(serve) == 1
    assert f"there is no key in {file}" in capsys.readouterr().err


def test_gateway_says_at_its_start_whom_it_lets_in(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(file, "alice", capsys)
    with gateway("--keys-file", str(file)) as process:
        assert "who has a key (alice)" in process.log.wait_for("let in")


async def test_gateway_without_keys_answers_every_address_but_no_foreign_name() -> None:
    overrides = {"server.host": "0.0.0.0", "access.allow_anyone": True}
    backend = HandBackend()
    app = create_app(GatewayConfig.load(overrides=overrides, env={}), backend)
    transport = httpx.ASGITransport(app)  # nothing listens
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://192.0.2.9:8000") as http,
    ):
        await app.state.gateway.started()
        assert (await http.post("/v1/streams", json={"prompt": "x"})).status_code == 201
        refused = await http.post("/v1/streams", json={"prompt": "x", "priority": 1})
        assert (refused.status_code, refused.json()["error"]["param"]) == (403, "priority")
        answer = await http.get("/v1/models", headers={"Host": "evil.test"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
        assert "server.allowed_hosts" in answer.json()["error"]["message"]


def test_gateway_takes_over_keys_limits_and_profiles_on_sighup(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alice, bob = add(file, "alice", capsys), add(file, "bob", capsys)
    config = tmp_path / "wetink.toml"
    config.write_text("")
    with gateway("--keys-file", str(file), "--config", str(config)) as running:

        def start(policy: str) -> httpx.Response:
            body = {"prompt": "x", "policy": policy, "max_tokens": 100_000}
            url = f"{running.url}/v1/streams"
            return httpx.post(url, json=body, headers=bearer(bob), trust_env=False)

        statuses = [running.get("/v1/models", key).status_code for key in (alice, bob, None)]
        assert statuses == [200, 200, 401]
        assert start("late").status_code == 400

        cli.main(["keys", "revoke", "alice", "--file", str(file)])
        carol = add(file, "carol", capsys, "--limit", "requests_per_minute=1")
        config.write_text(
            "[limits]\nbody_bytes = 1000\n[policies.profiles]\nlate = { kind = 'hold' }\n"
            "[delivery]\npad = 1024\ntick_ms = 50\n"
        )
        assert "reloaded" in running.hang_up()
        statuses = [
            running.get("/v1/models", key).status_code for key in (alice, bob, carol, carol)
        ]
        assert statuses == [401, 200, 200, 429]
        late = start("late")
        assert late.status_code == 201
        assert start("x" * 1000).status_code == 413
        events = running.url + late.json()["events"]
        with httpx.stream("GET", events, headers=bearer(bob), trust_env=False) as reading:
            assert b"\n:   " in next(reading.iter_raw(1024))  # filled up

        for broken, said in (
            (lambda: file.write_text("{"), "keys.json is not complete JSON"),
            (file.unlink, "there is no file"),
            (lambda: config.write_text("[limits]\nbody_bytes = 0\n"), "limits.body_bytes"),
        ):
            broken()
            line = running.hang_up()
            assert "reload refused" in line
            assert said in line
            assert running.get("/v1/models", bob).status_code == 200
            assert start("late").status_code == 201


def test_first_key_shuts_the_door_of_a_gateway_that_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with gateway() as running:
        url = f"{running.url}/v1/streams"
        headers = {"Accept": "text/event-stream"}
        body = {"prompt": "x"}
        with httpx.stream("POST", url, json=body, headers=headers, trust_env=False) as reading:
            lines = reading.iter_lines()
            assert any('"open"' in line for line in lines)
            alice = add(stored.default_path(), "alice", capsys)
            assert running.get("/v1/models").status_code == 200
            assert "reloaded" in running.hang_up()
            last = [line for line in lines if line.startswith("data")][-1]
        assert '"unauthorized"' in last
        statuses = [running.get("/v1/models", key).status_code for key in (alice, None)]
        assert statuses == [200, 401]


def test_gateway_keeps_its_door_shut_when_its_last_key_goes(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alice = add(file, "alice", capsys)
    with gateway("--keys-file", str(file)) as running:
        body = {"prompt": "x"}
        url = f"{running.url}/v1/streams"
        headers = {**bearer(alice), "Accept": "text/event-stream"}
        with httpx.stream("POST", url, json=body, headers=headers, trust_env=False) as reading:
            lines = reading.iter_lines()
            assert any('"open"' in line for line in lines)
            cli.main(["keys", "revoke", "alice", "--file", str(file)])
            assert "reloaded" in running.hang_up()
            last = [line for line in lines if line.startswith("data")][-1]
        assert '"unauthorized"' in last
        for key in (alice, None):
            assert running.get("/v1/models", key).status_code == 401
