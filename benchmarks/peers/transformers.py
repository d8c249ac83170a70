"""`transformers.generate` over the converted checkpoint in bfloat16: one batch at a time, without
HTTP.
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.peers import checkpoint
from benchmarks.peers.base import Answer, PeerError
from benchmarks.peers.environments import CONSTRAINTS, Environment, Recipe
from benchmarks.peers.processes import Process, last_line

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence

    from benchmarks.peers.base import Request

RECIPE = Recipe(
    name="transformers",
    install=("--constraint", str(CONSTRAINTS), "torch", "transformers", "accelerate", "jinja2"),
)
PROGRAM = Path(__file__).with_name("transformers_batches.py")


class Transformers:
    name = "transformers"

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._environment = Environment(RECIPE)
        self._process = Process("transformers")
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        self._environment.ensure()
        folder = checkpoint.converted()
        begin = time.perf_counter()
        # -I: else this folder, first on the path, would stand in for the library of its name.
        command = [self._environment.python, "-I", PROGRAM, folder, str(self._threads)]
        self._child = self._process.launch(command, {"HF_HUB_OFFLINE": "1"}, pipe=True)
        self._receive(self._child)
        return time.perf_counter() - begin

    def stop(self) -> None:
        self._process.stop()
        self._child = None

    def version(self) -> str:
        return self._environment.version("transformers")

    async def ask(self, requests: Sequence[Request]) -> list[Answer]:
        return await asyncio.to_thread(self._batch, requests)

    def _batch(self, requests: Sequence[Request]) -> list[Answer]:
        child = self._child
        if child is None or child.stdin is None:
            raise PeerError("is not running")
        job = {
            "prompts": [request.content for request in requests],
            "max_tokens": requests[0].max_tokens,
            "ignore_eos": requests[0].ignore_eos,
        }
        child.stdin.write(json.dumps(job).encode() + b"\n")
        child.stdin.flush()
        return [Answer(**answer) for answer in self._receive(child)["answers"]]

    def _receive(self, child: subprocess.Popen[bytes]) -> dict[str, Any]:
        line = child.stdout.readline() if child.stdout is not None else b""
        if not line:
            log = self._process.log
            raise PeerError(f"ended: {last_line(log)} (log: {log})")
        return json.loads(line)
