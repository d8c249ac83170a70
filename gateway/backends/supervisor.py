"""One run of an engine process: its start, its socket, its end. Bytes only; what the frames mean is
for the backend.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import tempfile
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from protocol.errors import WetinkError

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Sequence

logger = logging.getLogger("wetink.engine")

EXIT_GRACE_S = 5.0
"""How long an engine may take to end by itself once its socket is closed."""
TERMINATE_GRACE_S = 2.0
"""How long it may take to end once it was told to by a signal."""


_Connection: TypeAlias = "asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]"


class EngineLinkError(WetinkError):
    """The engine process did not connect, or sent what is no frame."""


class Framing(msgspec.Struct, frozen=True):
    """Each frame stands behind its length, big-endian in `prefix_bytes`."""

    prefix_bytes: int
    max_bytes: int


class RestartPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How often an engine that dies is started again."""

    max_restarts: int = 5
    """In `window_s`; with more, what is wrong will not go away by itself."""
    window_s: float = 60.0
    first_delay_s: float = 0.1
    """Doubles with each restart in the window."""


class RestartBudget:
    """Counts restarts against a policy. Times are the caller's clock, in seconds."""

    def __init__(self, policy: RestartPolicy) -> None:
        self._policy = policy
        self._recent: deque[float] = deque()

    def take(self, now: float) -> float | None:
        """Seconds to wait before one more start; None when the window's are used up."""
        if self.exhausted_for(now) > 0.0:
            return None
        delay = self._policy.first_delay_s * 2 ** len(self._recent)
        self._recent.append(now)
        return delay

    def exhausted_for(self, now: float) -> float:
        """Seconds until a restart is free again; 0 when one is."""
        policy, recent = self._policy, self._recent
        while recent and recent[0] + policy.window_s <= now:
            recent.popleft()
        return recent[0] + policy.window_s - now if len(recent) >= policy.max_restarts else 0.0


class EngineProcess:
    """A running engine process, connected. Made by `launch`, ended by `end`."""

    def __init__(
        self,
        process: Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        framing: Framing,
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._framing = framing

    @classmethod
    async def launch(cls, argv: Sequence[str], config: bytes, framing: Framing) -> EngineProcess:
        """Run `argv --socket PATH --config JSON` and wait until it has connected to PATH.

        The socket lies in a folder only this user can enter, and takes one connection. Raises
        `EngineLinkError` when the process cannot be run or ends first.
        """
        connected: _Connection = asyncio.get_running_loop().create_future()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if connected.done():
                writer.close()
            else:
                connected.set_result((reader, writer))

        folder = tempfile.mkdtemp(prefix="wetink-")
        try:
            path = str(Path(folder) / "engine.sock")
            server = await asyncio.start_unix_server(accept, path)
            try:
                process = await _spawn([*argv, "--socket", path, "--config", config.decode()])
                await _first_of(connected, process)
            finally:
                server.close()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return cls(process, *connected.result(), framing)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, frame: bytes) -> None:
        """Lost without a word if the process is gone: `frames` ends then."""
        if not self._writer.is_closing():
            prefix = len(frame).to_bytes(self._framing.prefix_bytes, "big")
            self._writer.write(prefix + frame)

    async def frames(self) -> AsyncIterator[bytes]:
        """Frames as they come; ends when the process closes the socket.

        Raises `EngineLinkError` for a frame over the limit.
        """
        try:
            while True:
                prefix = await self._reader.readexactly(self._framing.prefix_bytes)
                size = int.from_bytes(prefix, "big")
                if size > self._framing.max_bytes:
                    raise EngineLinkError(f"the engine sent a frame of {size} bytes")
                yield await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            return

    async def end(self) -> int:
        """Close the socket, on which the process ends; if it does not, make it. Returns its exit
        status (negative: the signal that ended it). Runs to its end even when cancelled, so that
        no process is left.
        """
        ending = asyncio.ensure_future(self._end())
        try:
            return await asyncio.shield(ending)
        except asyncio.CancelledError:
            await ending
            raise

    async def _end(self) -> int:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
        return await _reap(self._process, EXIT_GRACE_S)


async def _spawn(command: Sequence[str]) -> Process:
    try:
        return await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL)
    except OSError as error:
        raise EngineLinkError(f"{command[0]} cannot be run: {error.strerror}") from error


async def _first_of(connected: _Connection, process: Process) -> None:
    """Wait for the connection. The process is gone when this raises."""
    exited = asyncio.ensure_future(process.wait())
    try:
        await asyncio.wait({connected, exited}, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        if connected.done():
            connected.result()[1].close()
        await _reap(process, 0.0)
        raise
    finally:
        exited.cancel()
    if not connected.done():
        raise EngineLinkError(f"the engine process ended at once, with status {process.returncode}")


async def _reap(process: Process, grace_s: float) -> int:
    """Wait for the process to end; after `grace_s` seconds end it."""
    signals = ((grace_s, process.terminate), (TERMINATE_GRACE_S, process.kill))
    for seconds, end in signals:
        try:
            return await asyncio.wait_for(process.wait(), seconds)
        except TimeoutError:
            logger.warning("engine process %d does not end", process.pid)
            with contextlib.suppress(ProcessLookupError):
                end()
    return await process.wait()
