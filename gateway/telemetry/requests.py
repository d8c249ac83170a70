"""Every request gets an id, is counted, and has one line in the access log when it is over."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from starlette.datastructures import Headers

from gateway import request_ids

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from gateway.config import LogConfig
    from gateway.telemetry.metrics import HttpMetrics

access_log = logging.getLogger("wetink.access")

UNROUTED = "none"
"""The route of a request to a place that does not exist: its path could be anything."""
SWITCHED = 101
HUNG_UP = 499
"""nginx's status for a client that went away before it was answered."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_STARTS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})


class _Answer:
    """What became of one request; passes on what the application sends, and looks at it."""

    def __init__(self, send: Send, request_id: str) -> None:
        self.status: int | None = None
        self.bytes = 0
        """Of the body, or of all messages of a WebSocket."""
        self.is_cut = False
        """Whether more of the body was to come: the reader left, or the application broke."""
        self._send = send
        self._header = (request_ids.HEADER.lower().encode(), request_id.encode())

    def send(self, message: Message) -> Awaitable[None]:
        """Every write of a stream comes through here, so there is no coroutine of its own."""
        if message["type"] in _STARTS:
            self.status = message.get("status", SWITCHED)
            message = {**message, "headers": [*message.get("headers", ()), self._header]}
        elif (part := message.get("body") or message.get("bytes")) is not None:
            self.bytes += len(part)
            self.is_cut = message.get("more_body", False)
        elif text := message.get("text"):
            self.bytes += len(text) if text.isascii() else len(text.encode())
        return self._send(message)


class Requests:
    """ASGI middleware around everything else, so that it sees even what the application breaks on.

    Paths and query strings are not logged: they hold the ids of streams, and cursors.
    """

    def __init__(self, app: ASGIApp, config: LogConfig, metrics: HttpMetrics) -> None:
        self._app = app
        self._logs = config.access
        self._logs_ids = config.ids
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        request_id = request_ids.begin(Headers(scope=scope))
        answer = _Answer(send, request_id)
        try:
            await self._app(scope, receive, answer.send)
        finally:
            self._note(scope, answer, time.perf_counter() - begun)

    def _note(self, scope: Scope, answer: _Answer, seconds: float) -> None:
        method = scope.get("method", "GET")
        method = method if method in METHODS else "other"
        route = getattr(scope.get("route"), "path", UNROUTED)
        status = HUNG_UP if answer.status is None else answer.status
        self._metrics.note(method, route, status, seconds)
        if not self._logs:
            return
        fields: dict[str, object] = {
            "method": method,
            "route": route,
            "status": status,
            "seconds": round(seconds, 6),
            "bytes": answer.bytes,
        }
        if answer.is_cut:
            fields["cut"] = True
        if scope.get("client"):
            fields["client"] = scope["client"][0]
        stream = scope.get("path_params", {}).get("stream")
        if stream is not None:
            fields["stream"] = stream
        if self._logs_ids:
            fields["path"] = scope["path"]
        access_log.info("%s %s %d", method, route, status, extra={"fields": fields})
