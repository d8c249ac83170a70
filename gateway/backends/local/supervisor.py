"""Keeps one engine running: starts it, passes its frames on, starts another when it ends."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias

from engine import frames
from gateway.backends.local.process import EngineLinkError, EngineProcess
from gateway.backends.local.watchdog import Watchdog
from gateway.errors import BackendError
from protocol.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.backends.local.process import Answer, Step
    from gateway.config import SupervisionConfig

logger = logging.getLogger("wetink.engine")

OnProgress: TypeAlias = Callable[[str, float | None], None]
"""What the engine is doing before it is ready, and 0…1 where it can be told."""


class RestartBudget:
    """Counts restarts against what is allowed. Times are the caller's clock, in seconds."""

    def __init__(self, limits: SupervisionConfig) -> None:
        self._limits = limits
        self._recent: deque[float] = deque()

    def take(self, now: float) -> float | None:
        """Seconds to wait before one more start; None when the window's are used up."""
        if self.exhausted_for(now) > 0.0:
            return None
        delay = self._limits.restart_delay_s * 2 ** len(self._recent)
        self._recent.append(now)
        return delay

    def exhausted_for(self, now: float) -> float:
        """Seconds until a restart is free again; 0 when one is."""
        recent, window_s = self._recent, self._limits.restart_window_s
        while recent and recent[0] + window_s <= now:
            recent.popleft()
        if len(recent) < self._limits.max_restarts:
            return 0.0
        return recent[0] + window_s - now if recent else window_s

    def forgive(self) -> None:
        """What the engines ended of is known and gone."""
        self._recent.clear()


class Tenant(Protocol):
    """Whose streams run on the engine. Called on the event loop; nothing here may block."""

    def engine_ready(self) -> None:
        """An engine takes frames: the first one, or one that has to continue what was running."""
        ...

    def receive(self, frame: Step | Answer) -> None:
        """Something about a stream."""
        ...

    def engine_lost(self) -> bool:
        """The engine is gone, and with it all that it had drafted. Returns whether it is known what
        it ended of, and that this is gone too.
        """
        ...

    def give_up(self, error: BackendError) -> None:
        """No engine will run for a while, or ever: nobody should wait for one."""
        ...


class Supervisor:
    """One engine process at a time, on behalf of a `Tenant`."""

    def __init__(
        self,
        tenant: Tenant,
        worker: Sequence[str],
        config: bytes,
        limits: SupervisionConfig,
        on_progress: OnProgress | None,
    ) -> None:
        """`worker`: the program to run and its first arguments; `config`: its settings as JSON."""
        self.info: frames.Ready | None = None
        """What the latest engine said of itself."""
        self.ready = False
        """Whether an engine takes frames now."""
        self.load = frames.Load()
        """Of the present engine, as it said last."""
        self.restarts = 0
        """Engines that ended and were followed by another, or will be."""
        self._tenant = tenant
        self._worker = worker
        self.config = config
        """For the next engine; the present one goes on with what it was started with."""
        self._limits = limits
        self._budget = RestartBudget(limits)
        self._on_progress = on_progress
        self._process: EngineProcess | None = None
        self._running: asyncio.Task[None] | None = None

    @property
    def engine_pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Returns when the first engine is ready. Raises `BackendError` when it cannot start; it is
        not tried again then.
        """
        if self._running is not None:
            raise RuntimeError(
                "a backend can be started only once; a second engine would send its text twice"
            )
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._running = asyncio.create_task(self._supervise(started))
        await started

    async def stop(self) -> None:
        """Ends the engine, in bounded time."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    def kill(self) -> None:
        """The present engine, as `kill -9` would; another is started like after any other end."""
        if self._process is not None:
            self._process.kill()
            self.ready = False

    def send(self, frame: frames.ToEngine) -> None:
        """To the present engine; dropped where there is none."""
        if self._process is not None:
            self._process.send(frame)

    async def _supervise(self, started: asyncio.Future[None]) -> None:
        """Restart the engine when it ends, whatever it was that ended it: an exception of our own
        is one more reason. A first start that fails is reported, not repeated.
        """
        while True:
            try:
                reason = await self._run_engine(started)
            except Exception as error:
                logger.exception("the engine's supervisor failed")
                reason = f"its supervisor failed: {type(error).__name__}: {error}"
            if not started.done():
                started.set_exception(BackendError(reason, ErrorCode.ENGINE_FAILED))
                return
            self.restarts += 1
            logger.error("the engine ended: %s", reason)
            await self._wait_to_restart(reason)

    async def _wait_to_restart(self, reason: str) -> None:
        clock = asyncio.get_running_loop().time
        delay = self._budget.take(clock())
        if delay is None:
            self._tenant.give_up(
                BackendError(f"the engine keeps failing: {reason}", ErrorCode.ENGINE_FAILED)
            )
            # Without the streams, one of which may have been what it failed on.
            await asyncio.sleep(self._budget.exhausted_for(clock()))
            delay = self._budget.take(clock()) or 0.0
        await asyncio.sleep(delay)

    async def _run_engine(self, started: asyncio.Future[None]) -> str:
        """One life of an engine, from its launch to its end; returns why it ended."""
        try:
            process = await EngineProcess.launch(
                self._worker, self.config, patience_s=self._limits.start_s
            )
        except EngineLinkError as error:
            return str(error)
        self._process = process
        fault: str | None = None
        try:
            fault = await self._attend(process, started)
        except EngineLinkError as error:
            fault = str(error)
        finally:
            self._process = None
            self.ready = False
            self.load = frames.Load()
            try:
                if self._tenant.engine_lost():
                    self._budget.forgive()
            finally:
                status = await process.end()
        return fault or f"its process ended with status {status}"

    async def _attend(self, process: EngineProcess, started: asyncio.Future[None]) -> str | None:
        """Until the engine closes its end, or hangs and is killed. Returns what it died of, where
        that is known. Raises `EngineLinkError` for a broken frame.
        """
        watchdog = Watchdog(self._limits)
        listening = asyncio.ensure_future(self._listen(process, watchdog, started))
        try:
            while not listening.done():
                await asyncio.wait([listening], timeout=watchdog.tick_s)
                hung = None if listening.done() else watchdog.tick()
                if hung is not None:
                    process.kill()
                    return f"it hung ({hung}) and was killed"
                process.send(frames.Ping())
            return listening.result()
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _listen(
        self, process: EngineProcess, watchdog: Watchdog, started: asyncio.Future[None]
    ) -> str | None:
        """Until the engine closes its end. Returns what it says it died of."""
        died_of: str | None = None
        async for frame in process.received():
            watchdog.heard(frame)
            match frame:
                case frames.Loading():
                    if self._on_progress is not None:
                        self._on_progress(frame.phase, frame.fraction)
                case frames.Ready():
                    self._take_up(frame)
                    if not started.done():
                        started.set_result(None)
                case frames.Fatal():
                    died_of = frame.message
                case frames.Pong():
                    self.load = frame.load
                case _:
                    self._tenant.receive(frame)
        return died_of

    def _take_up(self, ready: frames.Ready) -> None:
        if self.info is not None:
            logger.info("the engine is back")
        self.info = ready
        self.ready = True
        logger.info("%s runs in %s with %s kernels", ready.model, ready.dtype, ready.kernels)
        self._tenant.engine_ready()
