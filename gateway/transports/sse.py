"""Server-sent events as a pure ASGI response: one write per flush, whatever it holds."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from gateway.delivery.connection import DIRECT_SEND
from protocol import sse
from protocol.errors import RequestError

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from gateway.delivery import Attachment, Connection
    from protocol.events import ServerEvent

HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    # A cache, a compressing proxy or nginx's buffer would each hold events back.
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
        self.encode = sse.EventWriter().encode

    def preamble(self) -> bytes:
        return sse.retry(self._retry_ms)


class EventStream:
    """Sends what `attachment` is owed until it is over or its reader is gone, then leaves it."""

    def __init__(
        self,
        attachment: Attachment,
        connection: Connection,
        framing: Framing,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        self._attachment = attachment
        self._connection = connection
        self._framing = framing
        self._headers = [*HEADERS, *headers]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watch = asyncio.create_task(watch_disconnect(receive, self._connection))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self._headers})
            if scope["method"] == "HEAD":
                await send({"type": "http.response.body", "body": b""})
            else:
                # In a task of its own: an event would wake the whole stack of middleware otherwise.
                await asyncio.create_task(self._send_events(scope.get(DIRECT_SEND, send)))
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
            self._attachment.leave()

    async def _send_events(self, send: Send) -> None:
        attachment, connection = self._attachment, self._connection
        head = self._framing.preamble()
        while not attachment.closed and await connection.woken():
            events = attachment.collect()
            if not events:
                continue
            body = attachment.encoded(events, self._encode)
            message = {
                "type": "http.response.body",
                "body": head + body if head else body,
                "more_body": not attachment.closed,
            }
            head = b""
            await connection.write(send(message))

    def _encode(self, events: list[ServerEvent]) -> bytes:
        encode = self._framing.encode
        return encode(events[0]) if len(events) == 1 else b"".join(map(encode, events))


async def watch_disconnect(receive: Receive, connection: Connection) -> None:
    """Runs until the peer hangs up or sends a body that is refused; then closes `connection`."""
    try:
        while (await receive())["type"] != "http.disconnect":
            pass
    except RequestError:
        pass
    connection.close()
