"""The servers under test: one process each, all on one core, and how each is asked."""

from __future__ import annotations

import contextlib
import os
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from benchmarks.gateway import load
from benchmarks.peers.environments import CONSTRAINTS, Environment, Recipe
from benchmarks.peers.processes import FOLDER, LOOPBACK, Process, free_port

if TYPE_CHECKING:
    from collections.abc import Sequence

READY_S = 90.0
ROOT = CONSTRAINTS.parent
DISTRIBUTIONS = (ROOT / "clients/python", ROOT)


def _dependencies() -> list[str]:
    """What the project needs of others, as its pyproject files say it."""
    read = [tomllib.loads((each / "pyproject.toml").read_text("utf-8")) for each in DISTRIBUTIONS]
    own = {project["project"]["name"] for project in read}
    needed = [each for project in read for each in project["project"]["dependencies"]]
    return [each for each in dict.fromkeys(needed) if each not in own]


GRANIAN = Recipe(
    name="granian",
    install=(
        *("granian==2.8.7", "--constraint", str(CONSTRAINTS)),
        *(f"--editable={each}" for each in DISTRIBUTIONS),
        # They come with the project. Named here, another dependency is another recipe.
        *_dependencies(),
    ),
)
LITELLM = Recipe(name="litellm", install=("litellm[proxy]==1.108.7",))


class Server:
    """One program; `core`: the only processor it may use."""

    def __init__(self, name: str, core: int) -> None:
        self.name = name
        self.port = 0
        self.pid = 0
        self._core = core
        self._process = Process(f"gateway-{name.lower().replace(' ', '-').replace(',', '')}")

    def start(self) -> None:
        """Raises PeerError."""
        self.port = free_port()
        command = ["taskset", "--cpu-list", str(self._core), *self.command()]
        environment = {"PYTHONPATH": str(ROOT)} | self.environment()
        self.pid = self._process.launch(command, environment).pid
        self._process.wait_until_ok(self.port, self.ready_path, READY_S)

    def stop(self) -> None:
        self._process.stop()

    ready_path = "/readyz"

    def command(self) -> Sequence[str | Path]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return {}

    def request(self, kind: str, count: int) -> bytes:
        """What asks for `count` events of `kind`."""
        raise NotImplementedError

    def talk(self, kind: str, count: int) -> load.Talk:
        """The same over a WebSocket."""
        raise NotImplementedError

    @property
    def memory_kib(self) -> int:
        """Resident."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
        return int(status.partition("VmRSS:")[2].split()[0])

    @property
    def used_s(self) -> float:
        """Processor time so far, of all its processes."""
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # a process that has just ended
                fields = stat.read_text(encoding="utf-8").rpartition(")")[2].split()
                if int(fields[2]) == self.pid:  # it leads their group
                    ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


class Wetink(Server):
    """The gateway with a source that costs next to nothing."""

    def command(self) -> Sequence[str | Path]:
        return [sys.executable, "-m", "benchmarks.gateway.apps", "wetink", str(self.port)]

    def talk(self, kind: str, count: int) -> load.Talk:
        start = {"type": "start", "ref": "a", "request": self._wanted(kind, count)}
        return load.Talk("/v1/ws", msgspec.json.encode(start))

    def request(self, kind: str, count: int) -> bytes:
        return load.post("/v1/streams", msgspec.json.encode(self._wanted(kind, count)))

    def _wanted(self, kind: str, count: int) -> dict[str, object]:
        policy = {"chunk": "chunk:sentence"}.get(kind, kind)
        if kind in ("paced", "idle"):
            policy = "hold"
        return {"prompt": "x", "model": kind, "max_tokens": count, "policy": policy}


class Bare(Server):
    """Starlette's StreamingResponse under uvicorn."""

    def command(self) -> Sequence[str | Path]:
        return [sys.executable, "-m", "benchmarks.gateway.apps", "bare", str(self.port)]

    def request(self, kind: str, count: int) -> bytes:
        frames, _, turns = kind.partition(" ")
        return load.get(f"/?kind={frames}&count={count}" + ("&turns=1" if turns else ""))

    def talk(self, kind: str, count: int) -> load.Talk:
        return load.Talk("/ws", msgspec.json.encode({"kind": kind, "count": count}))


class _OnGranian(Server):
    app = ""

    def command(self) -> Sequence[str | Path]:
        environment = Environment(GRANIAN)
        environment.ensure()
        options = ["--interface", "asgi", "--host", LOOPBACK, "--port", str(self.port)]
        options += ["--workers", "1", "--loop", "uvloop", "--log-level", "error", "--factory"]
        granian = [environment.python, "-m", "granian"]
        return [*granian, *options, f"benchmarks.gateway.apps:{self.app}"]


class WetinkOnGranian(_OnGranian, Wetink):
    app = "wetink"

    def command(self) -> Sequence[str | Path]:
        return _OnGranian.command(self)


class BareOnGranian(_OnGranian, Bare):
    app = "bare"


class Upstream(Server):
    """What the LiteLLM proxy asks; on the core of the load, as it belongs to it."""

    def command(self) -> Sequence[str | Path]:
        return [sys.executable, "-m", "benchmarks.gateway.apps", "upstream", str(self.port)]


class LiteLlm(Server):
    """The LiteLLM proxy in front of an upstream that streams as fast as it can."""

    ready_path = "/health/liveliness"

    def __init__(self, name: str, core: int, upstream: Upstream) -> None:
        super().__init__(name, core)
        self._upstream = upstream

    def command(self) -> Sequence[str | Path]:
        environment = Environment(LITELLM)
        environment.ensure()
        config = FOLDER / "litellm.yaml"
        config.write_text(
            "model_list:\n"
            "  - model_name: m\n"
            "    litellm_params:\n"
            "      model: openai/m\n"
            f"      api_base: http://{LOOPBACK}:{self._upstream.port}/v1\n"
            "      api_key: none\n"
            "general_settings:\n"
            "  dangerously_permit_weak_or_unset_master_key: true\n",
            encoding="utf-8",
        )
        program = environment.folder / "bin" / "litellm"
        options = ["--config", config, "--host", LOOPBACK, "--port", str(self.port)]
        return [environment.python, program, *options, "--num_workers", "1"]

    def environment(self) -> dict[str, str]:
        return {
            "PYTHONPATH": "",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it asks for it over the network
            "LITELLM_LOG": "ERROR",
        }

    def request(self, kind: str, count: int) -> bytes:
        wanted = {
            "model": "m",
            "messages": [{"role": "user", "content": "x"}],
            "stream": True,
            "max_tokens": count,
        }
        return load.post("/v1/chat/completions", msgspec.json.encode(wanted))
