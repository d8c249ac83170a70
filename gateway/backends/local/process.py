"""One run of an engine process: its launch, the frames on its socket, its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from engine import frames
from gateway.backends.base import Drafted, Failed, Finished, Verified
from gateway.backends.local.output import relay
from protocol.codec import MALFORMED
from protocol.errors import WetinkError

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Sequence

logger = logging.getLogger("wetink.engine")

EXIT_GRACE_S = 5.0
"""How long an engine may take to end by itself once its socket is closed."""
KILL_GRACE_S = 5.0
"""How long the kernel may take to end it once it was killed; a process that waits for a broken
device may never end."""
RELAY_GRACE_S = 1.0
"""How long after its end something may still come of its log."""

_Connection: TypeAlias = "asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]"


class EngineLinkError(WetinkError):
    """The engine process did not connect, or sent something that is not a frame."""


Answer: TypeAlias = frames.Accepted | frames.Rejected
"""What comes of a `Start`."""


class Step(msgspec.Struct, frozen=True, tag_field="t", tag="step", array_like=True):
    """`engine.frames.Step`, its events decoded as the gateway's own."""

    events: list[tuple[str, Drafted | Verified | Finished | Failed]]


FromEngine: TypeAlias = Step | Answer | frames.Loading | frames.Ready | frames.Fatal | frames.Pong

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(FromEngine)


class EngineProcess:
    """A running engine process, connected. Made by `launch`, ended by `end`."""

    def __init__(
        self,
        process: Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        relaying: asyncio.Task[None],
    ) -> None:
        """`relaying`: what passes on the process's log, until its end."""
        self._process = process
        self._relaying = relaying
        self._reader = reader
        self._writer = writer

    @classmethod
    async def launch(
        cls, argv: Sequence[str], config: bytes, *, patience_s: float
    ) -> EngineProcess:
        """Run `argv --socket PATH --config JSON` and wait until it has connected to PATH.

        The socket lies in a folder only this user can enter, and takes one connection. Raises
        `EngineLinkError` when the process cannot be run, ends first, or has not connected after
        `patience_s` seconds.
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
                assert process.stderr is not None
                relaying = asyncio.create_task(relay(process.stderr))
                try:
                    await _first_of(connected, process, patience_s)
                except BaseException:
                    await _finish_relaying(relaying)
                    raise
            finally:
                server.close()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return cls(process, *connected.result(), relaying)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, frame: frames.ToEngine) -> None:
        """Lost without a word if the process is gone: `received` ends then."""
        if not self._writer.is_closing():
            data = _encoder.encode(frame)
            self._writer.write(len(data).to_bytes(frames.LENGTH_PREFIX_BYTES, "big") + data)

    async def received(self) -> AsyncIterator[FromEngine]:
        """Frames as they come; ends when the process closes the socket.

        Raises `EngineLinkError` for a frame over the limit, and for data that is not a frame.
        """
        try:
            while True:
                prefix = await self._reader.readexactly(frames.LENGTH_PREFIX_BYTES)
                size = int.from_bytes(prefix, "big")
                if size > frames.MAX_FRAME_BYTES:
                    raise EngineLinkError(f"the engine sent a frame of {size} bytes")
                yield decode_frame(await self._reader.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError):
            return

    def kill(self) -> None:
        """For an engine that hangs: no signal but this one reaches a stopped process."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def end(self) -> int | None:
        """Close the socket, on which the process ends; if it does not, kill it. Returns its exit
        status (negative: the signal that ended it), None if not even a kill has ended it. Runs to
        its end even when cancelled, so that no process is left.
        """
        ending = asyncio.ensure_future(self._end())
        try:
            return await asyncio.shield(ending)
        except asyncio.CancelledError:
            await ending
            raise

    async def _end(self) -> int | None:
        # What a process that reads no more was not sent would keep `close` waiting.
        self._writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
        status = await _reap(self._process, EXIT_GRACE_S)
        await _finish_relaying(self._relaying)
        return status


async def _finish_relaying(relaying: asyncio.Task[None]) -> None:
    """The last words of a process that is gone; one of its children may hold the pipe open."""
    await asyncio.wait([relaying], timeout=RELAY_GRACE_S)
    relaying.cancel()
    await asyncio.gather(relaying, return_exceptions=True)


def decode_frame(data: bytes) -> FromEngine:
    """Raises `EngineLinkError`."""
    try:
        return _decoder.decode(data)
    except MALFORMED as error:
        raise EngineLinkError(f"the engine sent what is not a frame: {error}") from error


async def _spawn(command: Sequence[str]) -> Process:
    try:
        return await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
    except OSError as error:
        raise EngineLinkError(f"{command[0]} cannot be run: {error.strerror}") from error


async def _first_of(connected: _Connection, process: Process, patience_s: float) -> None:
    """Wait for the connection. The process is gone when this raises."""
    exited = asyncio.ensure_future(process.wait())
    try:
        await asyncio.wait(
            {connected, exited}, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED
        )
    except asyncio.CancelledError:
        if connected.done():
            connected.result()[1].close()
        await _reap(process, 0.0)
        raise
    finally:
        exited.cancel()
    if connected.done():
        return
    if process.returncode is None:
        await _reap(process, 0.0)
        raise EngineLinkError(f"the engine process did not connect within {patience_s:g} s")
    raise EngineLinkError(
        f"the engine process ended before it connected, with status {process.returncode}"
    )


async def _reap(process: Process, grace_s: float) -> int | None:
    """Wait for the process to end; after `grace_s` seconds kill it. None: it is still there."""
    for seconds in (grace_s, KILL_GRACE_S):
        try:
            return await asyncio.wait_for(process.wait(), seconds)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    logger.critical("engine process %d does not end, not even when killed", process.pid)
    return None
