"""What vLLM's engines publish, read as it comes: ZeroMQ, on the event loop."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

import msgspec
import zmq
import zmq.asyncio

from gateway.backends.vllm.messages import UnknownVersion, decode
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.backends.vllm.messages import Frame, Update

logger = logging.getLogger("wetink.upstreams")

UNREAD_FRAMES = 1000
"""For each engine; ZeroMQ drops what comes after, and the next frame that is read heals that."""
SILENT_S = 5.0
"""Plugins say something every second: what has been silent for so long is not there."""
FRAMES_AT_ONCE = 64
"""Before the event loop's other work has its turn."""


class Engine:
    """What is known of one that publishes: one life of it."""

    def __init__(self, frame: Frame) -> None:
        self.greedy_only = frame.greedy_only
        self.heard_at = time.monotonic()
        self.seq = frame.seq
        self.missed = frame.missed

    def take(self, frame: Frame) -> None:
        self.heard_at = time.monotonic()
        self.seq = frame.seq
        self.missed = frame.missed


class Channel:
    """Connects to every endpoint, again and again where one is not there yet."""

    def __init__(self, endpoints: Sequence[str], hear: Callable[[str, Update], None]) -> None:
        """`hear`: is called with the engine's name and each update."""
        self.lost_frames = 0
        """That did not arrive, of all engines, since the start."""
        self.missed_steps = 0
        """That plugins left out themselves."""
        self._endpoints = endpoints
        self._hear = hear
        self._engines: dict[str, Engine] = {}
        self._context: zmq.asyncio.Context | None = None
        self._reading: asyncio.Task[None] | None = None
        self._has_complained = False

    def open(self) -> None:
        """Raises ConfigError where an endpoint is none. Does nothing where it is open."""
        if self._context is not None:
            return
        self._context = zmq.asyncio.Context()
        socket = self._context.socket(zmq.SUB)
        socket.setsockopt(zmq.RCVHWM, UNREAD_FRAMES)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SUBSCRIBE, b"")
        for endpoint in self._endpoints:
            try:
                socket.connect(endpoint)
            except zmq.ZMQError as error:
                self._context.destroy()
                self._context = None
                raise ConfigError(f"upstreams.drafts: {endpoint}: {error}") from None
        self._reading = asyncio.create_task(self._read(socket))

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
            self._reading = None
        if self._context is not None:
            self._context.term()
            self._context = None

    @property
    def engines(self) -> list[Engine]:
        """Those that are heard."""
        since = time.monotonic() - SILENT_S
        return [engine for engine in self._engines.values() if engine.heard_at >= since]

    @property
    def greedy_only(self) -> bool:
        """Whether one of them corrupts text that is sampled."""
        return any(engine.greedy_only for engine in self.engines)

    def take(self, data: bytes) -> None:
        """What is no frame of this version is ignored, and said once."""
        try:
            frame = decode(data)
        except (UnknownVersion, msgspec.DecodeError) as error:
            if not self._has_complained:
                self._has_complained = True
                logger.warning("drafts of a vLLM cannot be read, and are not shown: %s", error)
            return
        engine = self._engines.get(frame.engine)
        if engine is None:
            since = time.monotonic() - SILENT_S
            self._engines = {
                name: known for name, known in self._engines.items() if known.heard_at >= since
            }
            self._engines[frame.engine] = Engine(frame)
            logger.info("a vLLM engine publishes its drafts")
        else:
            self.lost_frames += max(0, frame.seq - engine.seq - 1)
            self.missed_steps += frame.missed - engine.missed
            engine.take(frame)
        for update in frame.updates:
            self._hear(frame.engine, update)

    async def _read(self, socket: zmq.asyncio.Socket) -> None:
        try:
            while True:
                for _ in range(FRAMES_AT_ONCE):
                    self.take(await socket.recv())
                await asyncio.sleep(0)
        finally:
            socket.close()
