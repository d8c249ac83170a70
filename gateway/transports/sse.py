"""Server-sent events as a pure ASGI response: one write per flush, whatever it holds."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from protocol import sse
from protocol.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import Receive, Scope, Send

    from gateway.outlet import Outlet
    from gateway.subscription import Subscription
    from protocol.events import ServerEvent

HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    # A cache, a compressing proxy or nginx's buffer would each hold the ink back.
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
)


class Framing(Protocol):
    """How one attachment's events become bytes of an event stream."""

    def preamble(self) -> bytes:
        """What stands in front of the first event."""
        ...

    def encode(self, event: ServerEvent) -> bytes: ...


class WetinkFraming:
    """The protocol's own: `retry` once, an id wherever the commit watermark is known to stand."""

    def __init__(self, retry_s: float) -> None:
        self._retry_ms = round(retry_s * 1000)
        self._writer = sse.EventWriter()

    def preamble(self) -> bytes:
        return sse.retry(self._retry_ms)

    def encode(self, event: ServerEvent) -> bytes:
        return self._writer.encode(event)


class EventStream:
    """Sends what `subscription` is owed until it is over or its reader is gone, then leaves it."""

    def __init__(
        self,
        subscription: Subscription,
        outlet: Outlet,
        framing: Framing,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        self._subscription = subscription
        self._outlet = outlet
        self._framing = framing
        self._headers = [*HEADERS, *headers]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watch = asyncio.create_task(watch_disconnect(receive, self._outlet))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self._headers})
            if scope["method"] == "HEAD":
                await send({"type": "http.response.body", "body": b""})
            else:
                await self._send_events(send)
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
            self._subscription.leave()

    async def _send_events(self, send: Send) -> None:
        subscription, outlet = self._subscription, self._outlet
        head = self._framing.preamble()
        while not subscription.closed and await outlet.woken():
            events = subscription.collect()
            if not events:
                continue
            body = head + b"".join(self._frames(events))
            head = b""
            message = {
                "type": "http.response.body",
                "body": body,
                "more_body": not subscription.closed,
            }
            await outlet.write(send(message))

    def _frames(self, events: list[ServerEvent]) -> Iterator[bytes]:
        return map(self._framing.encode, events)


async def watch_disconnect(receive: Receive, outlet: Outlet) -> None:
    """Closes `outlet` when the peer hangs up, or sends a body that is refused; runs until then."""
    try:
        while (await receive())["type"] != "http.disconnect":
            pass
    except RequestError:
        pass
    outlet.close()
