"""vLLM on the CPU with n-gram speculation, as its users start it, with and without the plugin."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.peers import checkpoint
from benchmarks.peers.environments import Environment
from benchmarks.peers.processes import FOLDER, LOOPBACK, Process, free_port
from benchmarks.peers.vllm import RECIPE

if TYPE_CHECKING:
    from collections.abc import Generator

PLUGIN = Path(__file__).parents[3] / "integrations" / "vllm"
SPECULATION = (
    '{"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 4, '
    '"prompt_lookup_min": 2}'
)
WITH_PLUGIN = ("--no-async-scheduling", "--scheduler-cls", "wetink_vllm.scheduler.scheduler")
READY_S = 900.0
MODEL = "embedded"


class Running(NamedTuple):
    url: str
    drafts: str
    log: Path
    process: Process
    pid: int

    def kill(self) -> None:
        """As `kill -9` of the whole server does it: API server, engine core and worker."""
        os.killpg(self.pid, signal.SIGKILL)


def installed_plugin() -> Path:
    """A folder with the plugin as pip installs it, its entry point included."""
    folder = FOLDER / "vllm-plugin"
    options = ["--disable-pip-version-check", "--quiet", "--no-deps", "--upgrade"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", folder, PLUGIN]
    subprocess.run([str(word) for word in command], check=True)
    return folder


@contextmanager
def vllm(*options: str, plugin: Path | None = None, name: str) -> Generator[Running]:
    """Started and answering; ended with all its processes. One at a time: it takes gigabytes."""
    environment = Environment(RECIPE)
    environment.ensure()
    port, drafts = free_port(), free_port()
    runtime = next(iter(sorted(environment.folder.glob("lib/**/libiomp5.so"))))
    process = Process(name)
    command = [
        *(environment.python, "-P", "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", checkpoint.converted(), "--served-model-name", MODEL),
        *("--host", LOOPBACK, "--port", str(port)),
        *("--dtype", "bfloat16", "--max-model-len", "2048", "--max-num-seqs", "8"),
        # Compiling takes minutes, and nothing here is about speed.
        *("--enforce-eager", "--speculative-config", SPECULATION),
        *options,
    ]
    variables = {
        "LD_PRELOAD": str(runtime),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CACHE_ROOT": str(FOLDER / "vllm-cache"),
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": "" if plugin is None else str(plugin),
        "WETINK_VLLM_DRAFTS": f"tcp://{LOOPBACK}:{drafts}",
    }
    try:
        pid = process.launch(command, variables).pid
        process.wait_until_ok(port, "/health", READY_S)
        yield Running(
            f"http://{LOOPBACK}:{port}/v1", f"tcp://{LOOPBACK}:{drafts}", process.log, process, pid
        )
    finally:
        process.stop()
