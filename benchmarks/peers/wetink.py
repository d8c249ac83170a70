"""Wetink itself: `wetink serve` of this checkout, read over SSE with policy `hold`."""

from __future__ import annotations

import asyncio
import importlib.metadata
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.peers.base import Answer, PeerError
from benchmarks.peers.http import post
from benchmarks.peers.processes import Process, free_port

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.peers.base import Request

READY_S = 600.0
"""A first start may build and measure what later ones find in the cache."""
NO_PREFIX_CACHE = {"WETINK_ENGINE_PREFIX_CACHE": "false"}


class Wetink:
    name = "Wetink"

    def __init__(self, threads: int, options: Sequence[str] = ()) -> None:
        self._options = ("--threads", str(threads), *options)
        self._port = 0
        self._process = Process("wetink")

    def start(self) -> float:
        self._port = free_port()
        wetink = Path(sys.executable).with_name("wetink")
        command = [wetink, "serve", "--port", str(self._port)]
        begin = time.perf_counter()
        self._process.launch([*command, *self._options], NO_PREFIX_CACHE)
        self._process.wait_until_ok(self._port, "/readyz", READY_S)
        return time.perf_counter() - begin

    def stop(self) -> None:
        self._process.stop()

    def version(self) -> str:
        return importlib.metadata.version("wetink")

    async def ask(self, requests: Sequence[Request]) -> list[Answer]:
        return await asyncio.gather(*(self._stream(request) for request in requests))

    async def _stream(self, request: Request) -> Answer:
        body: dict[str, Any] = {
            "messages": [{"role": "user", "content": request.content}],
            "max_tokens": request.max_tokens,
            "ignore_eos": request.ignore_eos,
            "temperature": 0,
            "policy": "hold",
            "draft": {"drafter": request.drafter} if request.drafter else {"length": 0},
        }
        if request.drafter and request.prediction is not None:
            body["prediction"] = request.prediction
        exchange = await post(self._port, "/v1/streams", body)
        commits = [
            event
            for event in exchange.events
            if event.data["type"] == "commit" and event.data["text"]
        ]
        if not exchange.events or exchange.events[-1].data["type"] != "finish":
            raise PeerError(f"a stream ended without finish: {exchange.events[-1:]}")
        usage = exchange.events[-1].data["usage"]
        return Answer(
            text="".join(event.data["text"] for event in commits),
            prompt_tokens=usage["prompt_tokens"],
            tokens=usage["completion_tokens"],
            first_s=commits[0].at_s if commits else exchange.total_s,
            total_s=exchange.total_s,
            drafted=usage["drafted_tokens"],
            accepted=usage["accepted_tokens"],
        )
