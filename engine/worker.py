"""The engine's process: frames from the gateway in, engine steps, frames out.

`python -m engine.worker --socket PATH --config JSON`, started by the gateway. Three threads: the
main one runs the engine, one reads the socket and answers pings, one turns prompts into tokens. The
process ends with its gateway: when the socket closes and, on Linux, when the kernel says that the
parent is gone.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import logging
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, NoReturn, Protocol, TypeAlias, assert_never

import msgspec

from engine.config import EngineConfig, decode_config
from engine.errors import EngineConfigError, EngineError, EngineRequestError
from engine.frames import (
    LENGTH_PREFIX_BYTES,
    MAX_FRAME_BYTES,
    Accepted,
    Cancel,
    Fatal,
    FromEngine,
    Load,
    Loading,
    Ping,
    Pong,
    Ready,
    Rejected,
    SlowVerification,
    Start,
    Step,
    ToEngine,
    WantDrafts,
)
from engine.logs import log_to_gateway

if TYPE_CHECKING:
    from collections.abc import Generator

    from engine.text.prompts import Encoded

EXIT_FAILED = 70
EXIT_CONFIG = 78
"""As in sysexits.h: a fault of ours, a setting that cannot be used."""
EXIT_GRACE_S = 5.0
"""How long the main thread may take to notice that the gateway is gone, before it is not asked."""
IDLE_S = 5.0
"""Without work, the engine may look after itself every so many seconds."""
PR_SET_PDEATHSIG = 1
"""prctl(2)"""

log = logging.getLogger("engine.worker")
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ToEngine)

Progress: TypeAlias = Callable[[str, float | None], None]
ForStream: TypeAlias = Start | Cancel | WantDrafts
"""What the engine is told about a stream."""
ForEngine: TypeAlias = ForStream | SlowVerification


class EngineLike(Protocol):
    """What the worker needs of an engine; `engine.engine.Engine` is the one."""

    def info(self) -> Ready: ...
    @property
    def has_work(self) -> bool: ...
    def load(self) -> Load: ...
    def encode(self, start: Start) -> Encoded: ...
    def add(self, start: Start, encoded: Encoded) -> Accepted: ...
    def cancel(self, stream: str) -> None: ...
    def want_drafts(self, stream: str, wanted: bool) -> None: ...
    def slow_verification(self, delay_ms: float) -> None: ...
    def step(self, emit: Callable[[Step], None]) -> None: ...
    def idle(self) -> None: ...
    def close(self) -> None: ...


EngineMaker: TypeAlias = Callable[[EngineConfig, Progress], EngineLike]


class GatewayGoneError(Exception):
    """The socket is closed: there is nobody left to work for."""


class _Prompt(NamedTuple):
    """A stream's start whose text has been turned into tokens, or what came of trying."""

    start: Start
    outcome: Encoded | Exception


class _Work:
    """For how long the engine's threads have been at what they are doing now.

    Each thread writes its own entry, the reader of the socket only looks.
    """

    def __init__(self) -> None:
        self._since: dict[str, float | None] = {"step": None, "prompt": None}

    @contextmanager
    def under_way(self, what: str) -> Generator[None]:
        self._since[what] = time.monotonic()
        try:
            yield
        finally:
            self._since[what] = None

    def busy_s(self) -> float:
        """Of the longest, in seconds; 0 when there is nothing to do."""
        now = time.monotonic()
        return max(0.0 if since is None else now - since for since in self._since.values())


class _Link:
    """The socket. `receive` is for the main thread; other threads fill the inbox, bounded by what
    the gateway admits at once. `send` is for any.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.work = _Work()
        self.load: Callable[[], Load] = Load
        """What pings are answered with; set once there is an engine."""
        self._socket = sock
        self._buffer = bytearray()
        self._sending = threading.Lock()
        self._inbox: queue.SimpleQueue[ForEngine | _Prompt | None] = queue.SimpleQueue()
        self._finished = threading.Event()
        threading.Thread(target=self._read, name="gateway reader", daemon=True).start()

    def send(self, frame: FromEngine) -> None:
        """Blocks while the gateway is behind. Raises `GatewayGoneError`."""
        with self._sending:
            _encoder.encode_into(frame, self._buffer, LENGTH_PREFIX_BYTES)
            size = len(self._buffer) - LENGTH_PREFIX_BYTES
            if size > MAX_FRAME_BYTES:
                raise EngineError(f"an outgoing frame is over {MAX_FRAME_BYTES} bytes")
            self._buffer[:LENGTH_PREFIX_BYTES] = size.to_bytes(LENGTH_PREFIX_BYTES, "big")
            try:
                self._socket.sendall(self._buffer)
            except OSError as error:
                raise GatewayGoneError from error

    def put(self, prompt: _Prompt) -> None:
        """For the thread that encodes prompts."""
        self._inbox.put(prompt)

    def receive(self, wait_s: float = 0.0) -> ForEngine | _Prompt | None:
        """The next frame or prompt; None if none comes in so many seconds.

        Raises `GatewayGoneError`.
        """
        try:
            frame = self._inbox.get(block=wait_s > 0.0, timeout=wait_s or None)
        except queue.Empty:
            return None
        if frame is None:
            raise GatewayGoneError
        return frame

    def progress(self, phase: str, fraction: float | None) -> None:
        """Raises `GatewayGoneError`, which ends the loading."""
        self.send(Loading(phase, fraction))

    def finish(self) -> None:
        """The main thread is done."""
        self._finished.set()

    def _read(self) -> None:
        try:
            self._take_frames()
        except Exception as error:  # without its reader the engine could be told nothing any more
            log.error("gateway link broken: %s", str(error) or type(error).__name__)
        self._inbox.put(None)
        if not self._finished.wait(EXIT_GRACE_S):
            os._exit(EXIT_FAILED)

    def _take_frames(self) -> None:
        """Until the gateway closes its end. Raises on a frame that cannot be read or answered."""
        with self._socket.makefile("rb") as file:
            while len(prefix := file.read(LENGTH_PREFIX_BYTES)) == LENGTH_PREFIX_BYTES:
                size = int.from_bytes(prefix, "big")
                if size > MAX_FRAME_BYTES:
                    raise EngineError(f"a frame of {size} bytes is over the limit")
                frame = _decoder.decode(file.read(size))
                if isinstance(frame, Ping):
                    self.send(Pong(self.work.busy_s(), self.load()))
                else:
                    self._inbox.put(frame)


def serve(sock: socket.socket, config: str, make_engine: EngineMaker) -> int:
    """Run one engine until the gateway closes `sock`. Returns the process's exit status."""
    link = _Link(sock)
    try:
        engine = make_engine(decode_config(config), link.progress)
        link.load = engine.load
        link.send(engine.info())
        try:
            _run(engine, link)
        finally:
            engine.close()
    except GatewayGoneError:
        return 0
    except EngineConfigError as error:
        return _give_up(link, "invalid_config", f"{error.param}: {error.message}", EXIT_CONFIG)
    except EngineError as error:
        code = getattr(error, "code", None)
        if code is None:
            log.exception("engine error")
        # With a code it is what the operator asked for; the gateway says it, once.
        return _give_up(link, code or "internal", str(error), EXIT_FAILED)
    except Exception as error:
        log.exception("engine crashed")
        return _give_up(link, "internal", f"{type(error).__name__}: {error}", EXIT_FAILED)
    finally:
        link.finish()


def _give_up(link: _Link, code: str, message: str, status: int) -> int:
    try:
        link.send(Fatal(code, message))
    except GatewayGoneError:
        log.error("nobody left to tell: %s", message)
    return status


def _run(engine: EngineLike, link: _Link) -> NoReturn:
    """Until `GatewayGoneError`. Frames are taken between steps; without work, waited for."""
    with _Intake(engine, link) as intake:
        while True:
            frame = link.receive(0.0 if engine.has_work else IDLE_S)
            with link.work.under_way("step"):
                if frame is None and not engine.has_work:
                    engine.idle()
                while frame is not None:
                    intake.take(frame)
                    frame = link.receive()
                if engine.has_work:
                    engine.step(link.send)


class _Intake:
    """Hands the gateway's frames to the engine, those of one stream in the order they came.

    A prompt is turned into tokens on a thread of its own, so that a long one holds up nobody but
    the prompts behind it; what else comes for its stream waits with it.
    """

    def __init__(self, engine: EngineLike, link: _Link) -> None:
        self._engine = engine
        self._link = link
        self._encoder = ThreadPoolExecutor(1, "prompt encoder")
        self._behind: dict[str, list[ForStream]] = {}
        """Frames that wait, by the stream whose prompt is being encoded."""

    def __enter__(self) -> _Intake:
        return self

    def __exit__(self, *exception: object) -> None:
        self._encoder.shutdown(wait=False, cancel_futures=True)

    def take(self, frame: ForEngine | _Prompt) -> None:
        if isinstance(frame, SlowVerification):
            self._engine.slow_verification(frame.delay_ms)
        elif isinstance(frame, _Prompt):
            self._add(frame)
            for waiting in self._behind.pop(frame.start.stream):
                self.take(waiting)
        elif frame.stream in self._behind:
            self._behind[frame.stream].append(frame)
        else:
            self._handle(frame)

    def _handle(self, frame: ForStream) -> None:
        match frame:
            case Start():
                self._behind[frame.stream] = []
                self._encoder.submit(self._encode, frame)
            case Cancel():
                self._engine.cancel(frame.stream)
            case WantDrafts():
                self._engine.want_drafts(frame.stream, frame.wanted)
            case _:
                assert_never(frame)

    def _encode(self, start: Start) -> None:
        """On the encoder's thread."""
        try:
            with self._link.work.under_way("prompt"):
                outcome: Encoded | Exception = self._engine.encode(start)
        except Exception as error:  # whatever it is, it is this one request's
            outcome = error
        self._link.put(_Prompt(start, outcome))

    def _add(self, prompt: _Prompt) -> None:
        start, outcome = prompt
        try:
            if isinstance(outcome, Exception):
                raise outcome
            self._link.send(self._engine.add(start, outcome))
        except EngineRequestError as error:
            self._link.send(Rejected(start.stream, error.code, error.message, error.param))
        except (EngineError, GatewayGoneError, MemoryError):
            raise  # not this request's fault: the process cannot go on
        except Exception as error:
            log.exception("a stream could not be started", extra={"stream": start.stream})
            message = f"the engine could not start this request: {type(error).__name__}"
            self._link.send(Rejected(start.stream, "internal", message, None))


def _load_engine(config: EngineConfig, progress: Progress) -> EngineLike:
    # Imported late: torch takes seconds, and the gateway should hear from us before.
    progress("loading libraries", None)
    # Loading makes a million objects that all stay; to look for garbage among them again and again
    # takes a fifth of a start.
    gc.disable()
    try:
        from engine.engine import Engine

        return Engine(config, progress)
    finally:
        gc.freeze()
        gc.enable()


def _die_with_parent() -> None:
    """Have the kernel kill this process when its parent's thread ends. Linux only; elsewhere the
    closing socket has to do.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m engine.worker", description=__doc__)
    parser.add_argument("--socket", required=True, help="the gateway's unix socket")
    parser.add_argument("--config", default="{}", help="EngineConfig as JSON")
    arguments = parser.parse_args()
    log_to_gateway()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # Read when torch loads. By default its threads spin for milliseconds while they wait for one
    # another, which makes a step twenty times as long as soon as anything else, such as our own
    # gateway, wants a core; never to spin costs a third on a quiet machine. So: some ten
    # microseconds.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # Ctrl-C reaches the whole terminal's group, and a service manager's SIGTERM every process of
    # the service; when to stop is the gateway's decision.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _die_with_parent()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(arguments.socket)
        return serve(sock, arguments.config, _load_engine)


if __name__ == "__main__":
    sys.exit(main())
