"""Keeps one engine running: starts it, passes its frames on, starts another when it ends."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias

import msgspec

from engine import frames
from gateway.backends.local.process import EngineLinkError, EngineProcess
from gateway.errors import BackendError
from protocol.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.backends.local.process import Answer, FromEngine, Step

logger = logging.getLogger("wetink.engine")

OnProgress: TypeAlias = Callable[[str, float | None], None]
"""What the engine is doing before it is ready, and 0…1 where it can be told."""


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


class Tenant(Protocol):
    """Whose streams run on the engine. Called on the event loop; nothing here may block."""

    def engine_ready(self) -> None:
        """An engine takes frames: the first one, or one that has to continue what was running."""
        ...

    def receive(self, frame: Step | Answer) -> None:
        """Something about a stream."""
        ...

    def engine_lost(self) -> None:
        """The engine is gone, and with it all that it had drafted."""
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
        restarts: RestartPolicy,
        on_progress: OnProgress | None,
    ) -> None:
        """`worker`: the program to run and its first arguments; `config`: its settings as JSON."""
        self.info: frames.Ready | None = None
        """What the latest engine said of itself."""
        self.ready = False
        """Whether an engine takes frames now."""
        self._tenant = tenant
        self._worker = worker
        self._config = config
        self._budget = RestartBudget(restarts)
        self._on_progress = on_progress
        self._process: EngineProcess | None = None
        self._fatal: frames.Fatal | None = None
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

    def send(self, frame: frames.ToEngine) -> None:
        """To the present engine; dropped where there is none."""
        if self._process is not None:
            self._process.send(frame)

    async def _supervise(self, started: asyncio.Future[None]) -> None:
        """Whatever goes wrong in here, nobody keeps waiting for it."""
        try:
            await self._keep_running(started)
        except Exception as error:
            logger.exception("the engine's supervisor failed")
            failure = BackendError(f"the engine's supervisor failed: {error}", ErrorCode.INTERNAL)
            if not started.done():
                started.set_exception(failure)
            self._tenant.give_up(failure)

    async def _keep_running(self, started: asyncio.Future[None]) -> None:
        """Restart the engine when it ends; a first start that fails is reported, not repeated."""
        clock = asyncio.get_running_loop().time
        while True:
            reason = await self._run_engine(started)
            if not started.done():
                started.set_exception(BackendError(reason, ErrorCode.ENGINE_FAILED))
                return
            logger.error("the engine ended: %s", reason)
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
        self._fatal = None
        try:
            self._process = process = await EngineProcess.launch(self._worker, self._config)
        except EngineLinkError as error:
            return str(error)
        fault: str | None = None
        try:
            await self._listen(process, started)
        except EngineLinkError as error:
            fault = str(error)
        finally:
            self._process = None
            self.ready = False
            self._tenant.engine_lost()
            status = await process.end()
        if self._fatal is not None:
            return self._fatal.message
        return fault or f"its process ended with status {status}"

    async def _listen(self, process: EngineProcess, started: asyncio.Future[None]) -> None:
        """Until the engine closes its end. Raises `EngineLinkError` for a broken frame."""
        async for frame in process.received():
            self._receive(frame)
            if self.ready and not started.done():
                started.set_result(None)

    def _receive(self, frame: FromEngine) -> None:
        match frame:
            case frames.Loading():
                if self._on_progress is not None:
                    self._on_progress(frame.phase, frame.fraction)
            case frames.Ready():
                if self.info is not None:
                    logger.info("the engine is back")
                self.info = frame
                self.ready = True
                logger.info(
                    "%s runs in %s with %s kernels", frame.model, frame.dtype, frame.kernels
                )
                self._tenant.engine_ready()
            case frames.Fatal():
                self._fatal = frame
            case _:
                self._tenant.receive(frame)
