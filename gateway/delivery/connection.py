"""One client's connection, as everything that is delivered over it shares it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from gateway.access import Principal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from gateway.clock import Clock
    from protocol.events import ServerEvent

ABORT_EXTENSION = "wetink.abort"
"""ASGI scope extension: `{"abort": callable}` cuts the connection without waiting for its reader.
`gateway/server.py` provides it; `close` would wait for a jammed peer to take what is buffered."""
DIRECT_SEND = "wetink.direct_send"
"""ASGI scope: the server's own `send`, for bodies of event streams. `gateway/app.py` sets it."""

T = TypeVar("T")


class Source(Protocol):
    """What is delivered over a connection: an attachment."""

    @property
    def closed(self) -> bool:
        """Whether nothing more will come."""
        ...

    def collect(self) -> list[ServerEvent]:
        """All that is owed to the client now, in order."""
        ...

    def encoded(self, events: list[ServerEvent], encode: Callable[[list[ServerEvent]], T]) -> T:
        """`encode(events)`, of what was collected last."""
        ...

    def leave(self) -> None:
        """Nobody reads any more. Idempotent."""
        ...


class Line(Protocol):
    """What an attachment needs of its connection."""

    @property
    def stuck_since(self) -> float | None: ...

    def wake(self, source: Source) -> None: ...

    def abort(self) -> None: ...


class Connection:
    """Collects which sources have something to say; knows since when a write has been stuck.

    Holds no text. `woken` is bounded by the connection's number of attachments.
    """

    def __init__(
        self, clock: Clock, scope: Mapping[str, Any], principal: Principal | None = None
    ) -> None:
        """`principal`: whose it is; None: anyone's, and nothing is counted."""
        self.principal = principal or Principal.unbounded(clock.now)
        self.closed = False
        """The peer is gone, or the connection was cut."""
        self.stuck_since: float | None = None
        """When the write that is under way began; None between writes."""
        self._clock = clock
        self._abort: Callable[[], None] | None = (
            scope.get("extensions", {}).get(ABORT_EXTENSION, {}).get("abort")
        )
        self._woken: dict[Source, None] = {}
        self._waiter: asyncio.Future[None] | None = None
        """Of the one task that writes; an `asyncio.Event` would keep a list of them."""
        self._finishing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        """Of its task, once it has waited; to ask for it is a system call before Python 3.12."""

    def wake(self, source: Source) -> None:
        """`source` may have something to say."""
        self._woken[source] = None
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():  # done: its task was cancelled
                waiter.set_result(None)

    async def woken(self) -> Collection[Source]:
        """Waits for the next that were woken; none once nothing more will be.

        For one task at a time.
        """
        if not (self._woken or self.closed or self._finishing):
            if self._loop is None:
                self._loop = asyncio.get_running_loop()
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self.closed:
            return []
        woken, self._woken = self._woken, {}
        return woken

    async def write(self, sending: Awaitable[None]) -> None:
        """Runs one write of the transport's, so that a stuck one is seen."""
        self.stuck_since = self._clock.now()
        try:
            await sending
        finally:
            self.stuck_since = None

    def finish(self) -> None:
        """Those woken so far are the last. Idempotent."""
        self._finishing = True
        self._release()

    def close(self) -> None:
        """Nothing more can be written. Idempotent."""
        self.closed = True
        self._release()

    def abort(self) -> None:
        """Cuts the connection, whatever is still buffered for it."""
        self.close()
        if self._abort is not None:
            self._abort()

    def _release(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
