"""One connection's way out, shared by all attachments that write to it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from gateway.clock import Clock
    from gateway.subscription import Subscription

ABORT_EXTENSION = "wetink.abort"
"""ASGI scope extension: `{"abort": callable}` cuts the connection without waiting for its reader.
`gateway/server.py` provides it; `close` would wait for a jammed peer to take what is buffered."""


class Outlet:
    """Collects who has something to say; knows since when a write has been stuck.

    Holds no text. `woken` is bounded by the connection's number of attachments.
    """

    def __init__(self, clock: Clock, scope: Mapping[str, Any]) -> None:
        self.closed = False
        """The peer is gone, or the connection was cut."""
        self.stuck_since: float | None = None
        """When the write that is under way began; None between writes."""
        self._clock = clock
        self._abort: Callable[[], None] | None = (
            scope.get("extensions", {}).get(ABORT_EXTENSION, {}).get("abort")
        )
        self._woken: dict[Subscription, None] = {}
        self._event = asyncio.Event()
        self._finishing = False

    def wake(self, subscription: Subscription) -> None:
        """`subscription` may have something to say."""
        self._woken[subscription] = None
        self._event.set()

    async def woken(self) -> list[Subscription]:
        """Waits for the next that were woken; an empty list once nothing more will be."""
        await self._event.wait()
        if self.closed:
            return []
        woken = list(self._woken)
        self._woken.clear()
        if not self._finishing:
            self._event.clear()
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
        self._event.set()

    def close(self) -> None:
        """Nothing more can be written. Idempotent."""
        self.closed = True
        self._event.set()

    def abort(self) -> None:
        """Cuts the connection, whatever is still buffered for it."""
        self.close()
        if self._abort is not None:
            self._abort()
