"""`wetink doctor`: what is wrong with this machine and this configuration, before anybody waits."""

from __future__ import annotations

import argparse
import asyncio
import platform
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from gateway import engine_packages
from gateway.addresses import is_loopback
from gateway.backends.local.settings import check_engine
from gateway.backends.openai.backend import examined
from gateway.backends.openai.errors import UpstreamError
from gateway.config import GatewayConfig, read_toml
from gateway.errors import ConfigError
from gateway.server import bind
from gateway.settings.command import problems_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.config.upstreams import UpstreamConfig

ENOUGH_FILES = 4096
"""Each connection is an open file; Linux gives a process 1,024 unless told otherwise."""
SOCKET_PATH_BYTES = 107
"""Of a Unix socket on Linux (unix(7)), without the NUL."""
SOCKET_NAME = "/wetink-12345678/engine.sock"
EXAMINE_TIMEOUT_S = 300
EXIT_WELL, EXIT_ILL = 0, 1


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at. "lost": it works, at the price of `costs`; "broken": it does
    not.
    """

    about: str
    state: Literal["ok", "lost", "broken"]
    found: str
    costs: str = ""
    mend: str = ""


def run(argv: Sequence[str]) -> int:
    """Prints what was found; the exit status is 0 unless something is broken."""
    parser = argparse.ArgumentParser(
        prog="wetink doctor",
        description="Look at this machine and a configuration: what works, what is lost, what is "
        "broken, and how to mend it. The exit status is 1 if anything is broken.",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file, as for `serve`")
    findings = examine(parser.parse_args(argv).config)
    for finding in findings:
        sys.stdout.write(shown(finding))
    broken = sum(finding.state == "broken" for finding in findings)
    lost = sum(finding.state == "lost" for finding in findings)
    sys.stdout.write(f"\n{_verdict(broken, lost)}\n")
    return EXIT_ILL if broken else EXIT_WELL


def examine(path: Path | None) -> list[Finding]:
    """Everything there is to find out without starting an engine."""
    findings = [_system(), _open_files(), _temporary_folder()]
    try:
        config = GatewayConfig.load(path)
        check_engine(config.engine)
    except ConfigError as error:
        problems = [] if path is None else _problems(path)
        found = "; ".join(problems or [str(error)])
        mend = "wetink config check FILE lists them; docs/configuration.md has all keys"
        costs = "the gateway does not start"
        return [*findings, Finding("configuration", "broken", found, costs, mend)]
    where = "the defaults and variables" if path is None else str(path)
    findings += [
        Finding("configuration", "ok", f"{where} can be read"),
        _port(config),
        _address(config.server.host),
    ]
    findings += [each for upstream in config.upstreams for each in _upstream(upstream)]
    if (kind := config.own_backend) != "local" and not _drafts_ahead(config):
        return [*findings, Finding("engine", "ok", f'none needed: backend.kind is "{kind}"')]
    return [*findings, *_engine(config)]


def shown(finding: Finding) -> str:
    lines = [f"{finding.state:<7} {finding.about}: {finding.found}"]
    if finding.costs:
        lines.append(f"        lost: {finding.costs}")
    if finding.mend:
        lines.append(f"        mend: {finding.mend}")
    return "\n".join(lines) + "\n"


def _verdict(broken: int, lost: int) -> str:
    if broken:
        return f"{broken} broken: Wetink does not serve like this."
    return f"Wetink can serve; {lost} could be better." if lost else "All is well."


def _problems(path: Path) -> list[str]:
    try:
        return problems_of(read_toml(path))
    except ConfigError:
        return []


def _system() -> Finding:
    found = f"{platform.system()} on {platform.machine()}, Python {platform.python_version()}"
    if platform.system() == "Linux":
        return Finding("system", "ok", found)
    costs = "fast kernels, and the certainty that an engine ends with its gateway"
    return Finding("system", "lost", found, costs, "Linux, also in a container")


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= ENOUGH_FILES:
        return Finding("open files", "ok", f"{soft} at once")
    return Finding(
        "open files",
        "lost",
        f"{soft} at once",
        f"connections beyond about {max(0, soft - 50)} are not accepted",
        f"ulimit -n {ENOUGH_FILES} (up to {hard}), or LimitNOFILE= of the systemd unit",
    )


def _temporary_folder() -> Finding:
    folder = tempfile.gettempdir()
    if len((folder + SOCKET_NAME).encode()) <= SOCKET_PATH_BYTES:
        return Finding("temporary folder", "ok", folder)
    return Finding(
        "temporary folder",
        "broken",
        f"{folder} is too long for a socket's path ({SOCKET_PATH_BYTES} bytes)",
        "engine and gateway cannot talk",
        "name a shorter one in TMPDIR",
    )


def _port(config: GatewayConfig) -> Finding:
    host, port = config.server.host, config.server.port
    try:
        bind(config).close()
    except ConfigError as error:
        mend = "end what listens there, or choose another server.port"
        return Finding("port", "broken", str(error), "the gateway does not start", mend)
    return Finding("port", "ok", f"{host}:{port} can be listened on")


def _address(host: str) -> Finding:
    if is_loopback(host):
        return Finding("address", "ok", f"{host}: this machine only")
    return Finding(
        "address",
        "lost",
        f"{host}: whoever reaches this machine's network reaches the gateway",
        "privacy: streams travel in the clear unless a proxy or uvicorn encrypts them",
        "listen on 127.0.0.1 behind a reverse proxy (docs/OPERATING.md)",
    )


def _upstream(config: UpstreamConfig) -> list[Finding]:
    """One for each of its servers."""
    about = f"upstream {config.title}"
    try:
        servers = asyncio.run(examined(config))
    except ConfigError as error:
        mend = "set the variable, or write the file"
        return [Finding(about, "broken", str(error), "the gateway does not start", mend)]
    return [_server(about, config, address, said) for address, said in servers]


def _server(
    about: str, config: UpstreamConfig, address: str, said: list[str] | Exception
) -> Finding:
    """`said`: the models it lists, or what is wrong with it."""
    if isinstance(said, UpstreamError):
        mend = "start it, or correct its URL"
        return Finding(about, "lost", str(said), "nothing is asked of it until it answers", mend)
    if isinstance(said, Exception):
        mend = "correct its URL, key_variable or key_file"
        return Finding(about, "broken", str(said), "the gateway does not start", mend)
    wanted = config.models.values() if isinstance(config.models, dict) else config.models or said
    if missing := [name for name in wanted if name not in said]:
        found = f"{address} does not list {', '.join(missing)}"
        costs, mend = "requests for it are refused there", "correct the upstream's models"
        return Finding(about, "lost", found, costs, mend)
    return Finding(about, "ok", f"{address} serves {', '.join(wanted)}")


def _drafts_ahead(config: GatewayConfig) -> bool:
    """Whether the engine is started for upstreams, to draft ahead of them."""
    if not config.upstreams or config.ahead.enabled is False:
        return False
    return bool(config.ahead.enabled) or not engine_packages.missing()


def _engine(config: GatewayConfig) -> list[Finding]:
    """What only the engine's own code can tell, in a process of its own: it loads torch."""
    if missing := engine_packages.missing():
        found, costs = f"{' and '.join(missing)} not installed", "the engine does not start"
        return [Finding("libraries", "broken", found, costs, engine_packages.INSTALL)]
    settings = msgspec.json.encode(config.engine).decode()
    command = [sys.executable, "-m", "engine.doctor", "--config", settings]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=EXAMINE_TIMEOUT_S
        )
        return msgspec.json.decode(done.stdout.splitlines()[-1], type=list[Finding])
    except (subprocess.SubprocessError, msgspec.DecodeError, IndexError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        costs = "it will not start either"
        mend = f"{' '.join(command[1:3])} in this environment shows more"
        return [Finding("engine", "broken", said[-1] if said else "no answer", costs, mend)]
