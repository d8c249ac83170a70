"""Proxies, service manager and monitoring with the files of deploy/, for real.

Heavy, because the programs come from the system's packages: `make test-heavy`.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import msgspec
import pytest
import yaml
from websockets.asyncio.client import connect

from gateway.backends.base import Drafted, EngineLoad, Finished, Load, Verified
from protocol.events import Commit, Open, Tentative
from tests.deploy.files import DEPLOY, dashboard_expressions, program, rules
from tests.server.gateways import PATIENCE_S, Served, hand_served

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

pytestmark = pytest.mark.heavy

HOST = "gateway.example"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def running(command: list[str], port: int, folder: Path) -> AsyncGenerator[None]:
    """A program, once it takes connections on `port`."""
    with (folder / "output").open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=output, stderr=output, env={"HOME": str(folder), "PATH": "/usr/bin"}
        )
    try:
        async with asyncio.timeout(PATIENCE_S):
            while process.returncode is None:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.05)
                else:
                    writer.close()
                    break
        assert process.returncode is None, (folder / "output").read_text()
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for HOST, and its key."""
    pem, key = folder / "certificate.pem", folder / "key.pem"
    options = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={HOST}"]
    names = ["-addext", f"subjectAltName=DNS:{HOST},IP:127.0.0.1"]
    command = [program("openssl"), "req", *options, *names, "-out", str(pem), "-keyout", str(key)]
    subprocess.run(command, check=True, capture_output=True)
    return pem, key


def replaced(text: str, changes: dict[str, str]) -> str:
    """Each place that a test must change is there, so that the rest is what is deployed."""
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


@asynccontextmanager
async def nginx(folder: Path, gateway: str) -> AsyncGenerator[tuple[str, ssl.SSLContext]]:
    port = free_port()
    pem, key = certificate(folder)
    site = replaced(
        (DEPLOY / "nginx.conf").read_text(),
        {
            "127.0.0.1:8000": gateway.removeprefix("http://"),
            "listen 443": f"listen 127.0.0.1:{port}",
            "/etc/wetink/tls/certificate.pem": str(pem),
            "/etc/wetink/tls/key.pem": str(key),
        },
    )
    (folder / "site.conf").write_text(site)
    kept = "\n".join(
        f"{name}_temp_path {folder}/{name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    main = folder / "nginx.conf"
    main.write_text(
        f"daemon off; pid {folder}/pid; error_log stderr; events {{ }}\n"
        f"http {{ access_log off; {kept} include {folder}/site.conf; }}\n"
    )
    command = [program("nginx"), "-c", str(main), "-p", str(folder), "-e", "stderr"]
    async with running(command, port, folder):
        yield f"https://127.0.0.1:{port}", ssl.create_default_context(cafile=str(pem))


@asynccontextmanager
async def caddy(folder: Path, gateway: str) -> AsyncGenerator[tuple[str, ssl.SSLContext | None]]:
    """Over plain HTTP: a certificate for a name of ours is nothing it could fetch here."""
    port = free_port()
    text = replaced(
        (DEPLOY / "Caddyfile").read_text(),
        {
            "gateway.example {": f"http://127.0.0.1:{port} {{",
            "127.0.0.1:8000": gateway.removeprefix("http://"),
        },
    )
    file = folder / "Caddyfile"
    file.write_text("{\n\tadmin off\n}\n" + text)
    command = [program("caddy"), "run", "--config", str(file), "--adapter", "caddyfile"]
    async with running(command, port, folder):
        yield f"http://127.0.0.1:{port}", None


PROXIES = {"nginx": nginx, "caddy": caddy}


@asynccontextmanager
async def proxied(name: str, folder: Path) -> AsyncGenerator[tuple[Served, ssl.SSLContext | None]]:
    """A gateway as it is seen through a proxy."""
    async with (
        hand_served() as served,
        PROXIES[name](folder, served.url) as (url, trusted),
        httpx.AsyncClient(
            base_url=url, timeout=PATIENCE_S, trust_env=False, verify=trusted or False
        ) as http,
    ):
        yield Served(url, http, served.backend, served.clock), trusted


@pytest.mark.parametrize("name", PROXIES)
async def test_reader_behind_a_proxy_has_each_event_before_the_next_happens(
    name: str, tmp_path: Path
) -> None:
    async with proxied(name, tmp_path) as (served, _):
        stream = await served.start()
        async with served.read(stream, policy="retract") as reader:
            assert isinstance((await reader.next()).event, Open)
            for word in ("one ", "two ", "three "):
                served.backend.say(Drafted(word))
                assert isinstance((await reader.next()).event, Tentative)
                served.backend.say(Verified(word))
                assert isinstance((await reader.next()).event, Commit)
            assert "content-encoding" not in reader.response.headers
            assert reader.response.headers["x-request-id"]
            served.backend.say(Finished("stop"))
            await reader.to_end()


@pytest.mark.parametrize("name", PROXIES)
async def test_websocket_behind_a_proxy_has_each_event_before_the_next_happens(
    name: str, tmp_path: Path
) -> None:
    async with proxied(name, tmp_path) as (served, trusted):
        url = served.url.replace("http", "ws", 1) + "/v1/ws"
        async with asyncio.timeout(PATIENCE_S), connect(url, ssl=trusted) as socket_:
            request = {"prompt": "hi", "policy": "hold"}
            await socket_.send(
                msgspec.json.encode({"type": "start", "ref": "a", "request": request}).decode()
            )
            assert msgspec.json.decode(await socket_.recv())["type"] == "open"
            for word in ("one ", "two "):
                served.backend.say(Verified(word))
                assert msgspec.json.decode(await socket_.recv())["text"] == word


@pytest.mark.parametrize("name", PROXIES)
async def test_metrics_are_not_to_be_had_through_a_proxy(name: str, tmp_path: Path) -> None:
    async with proxied(name, tmp_path) as (served, _):
        assert (await served.http.get("/metrics")).status_code == 404
        assert (await served.http.get("/readyz")).status_code == 200


async def test_gateway_encrypts_by_itself_where_it_has_a_certificate(tmp_path: Path) -> None:
    pem, key = certificate(tmp_path)
    settings = {"server__tls_certificate": str(pem), "server__tls_key": str(key)}
    async with hand_served(**settings) as served:
        assert served.url.startswith("https://")
        trusted = ssl.create_default_context(cafile=str(pem))
        async with httpx.AsyncClient(
            base_url=served.url, verify=trusted, trust_env=False, timeout=PATIENCE_S
        ) as http:
            secure = Served(served.url, http, served.backend, served.clock)
            stream = await secure.start()
            async with secure.read(stream, policy="hold") as reader:
                served.backend.say(Verified("sealed"), Finished("stop"))
                await reader.to_end()


def test_alerts_fire_when_they_should_and_only_then() -> None:
    promtool = program("promtool")
    for command in (
        ["check", "config", str(DEPLOY / "prometheus.yml")],
        ["test", "rules", str(Path(__file__).with_name("alerts_test.yml"))],
    ):
        done = subprocess.run([promtool, *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tried() -> None:
    tried = yaml.safe_load(Path(__file__).with_name("alerts_test.yml").read_text())["tests"]
    fired = {
        case["alertname"]
        for test in tried
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }
    assert fired == {rule["alert"] for rule in rules()}


async def test_prometheus_reads_the_gateway_and_understands_every_expression(
    tmp_path: Path,
) -> None:
    port = free_port()
    async with hand_served() as served:
        served.backend.load_now = Load(
            waiting=5,
            engine=EngineLoad(
                kv_blocks=4,
                kv_blocks_used=1,
                steps=1,
                preemptions=0,
                sentinel_checks=0,
                sentinel_mismatches=0,
            ),
        )
        changes = {
            "127.0.0.1:8000": served.url.removeprefix("http://"),
            "_interval: 15s": "_interval: 1s",
        }
        (tmp_path / "prometheus.yml").write_text(
            replaced((DEPLOY / "prometheus.yml").read_text(), changes)
        )
        (tmp_path / "alerts.yml").write_text((DEPLOY / "alerts.yml").read_text())
        command = [
            program("prometheus"),
            f"--config.file={tmp_path}/prometheus.yml",
            f"--storage.tsdb.path={tmp_path}/data",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        async with (
            running(command, port, tmp_path),
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http,
            asyncio.timeout(60),
        ):

            async def ask(expression: str) -> list[dict[str, list[str]]]:
                answer = await http.get("/api/v1/query", params={"query": expression})
                assert answer.status_code == 200, f"{expression}: {answer.text}"
                return list(answer.json()["data"]["result"])

            while not (waiting := await ask('sum(wetink_queue_streams{job="wetink"})')):
                pass
            assert waiting[0]["value"][1] == "5"
            for expression in [*dashboard_expressions(), *(rule["expr"] for rule in rules())]:
                await ask(expression)


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    wetink = Path(sys.executable).with_name("wetink")
    unit = tmp_path / "wetink.service"
    text = (DEPLOY / "wetink.service").read_text()
    unit.write_text(replaced(text, {"/opt/wetink/bin/wetink": str(wetink)}))
    command = [program("systemd-analyze"), "verify", "--man=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
