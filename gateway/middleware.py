"""Pure ASGI middleware: what may come in at all. Nothing here touches a response on its way out."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from gateway.responses import error_response
from protocol.errors import ErrorCode, RequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

DRAIN_S = 5.0
DRAIN_FACTOR = 4
"""Enough for a body that is somewhat too large; who sends more may lose the answer."""
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class BodyLimit:
    """Refuses a body over `max_bytes` with `body_too_large`: by its declared length, or, sent in
    chunks, as soon as it has grown too long.

    The answer goes out at once, and its end only when the peer has sent the rest, or `DRAIN_FACTOR`
    times `max_bytes` of it, or has taken `DRAIN_S`. A peer that writes first and reads then would
    otherwise find its connection reset and the answer lost (RFC 9112, section 9.6).
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        declared = headers.get("content-length", "0")
        # A peer that waits for "100 Continue" sends nothing when it is refused instead.
        waits = headers.get("expect", "").lower() == "100-continue"
        if not declared.isdecimal() or int(declared) > self._max_bytes:
            response = error_response(ErrorCode.BODY_TOO_LARGE, self._message)
            draining = send if waits else self._after_draining(receive, send)
            await response(scope, receive, _closing(draining))
            return
        received, has_rest = 0, True

        async def limited() -> Message:
            nonlocal received, has_rest
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                has_rest = message.get("more_body", False)
                if received > self._max_bytes:
                    raise RequestError(ErrorCode.BODY_TOO_LARGE, self._message)
            return message

        async def answering(message: Message) -> None:
            too_large = received > self._max_bytes
            await (refusing if too_large and has_rest else send)(message)

        refusing = _closing(self._after_draining(receive, send))
        await self._app(scope, limited, answering)

    def _after_draining(self, receive: Receive, send: Send) -> Send:
        """Sends an answer whose end waits for the rest of the request."""

        async def draining(message: Message) -> None:
            if message["type"] != "http.response.body" or message.get("more_body", False):
                await send(message)
                return
            await send({**message, "more_body": True})
            with suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_S):
                    await self._drain(receive)
            await send({"type": "http.response.body", "body": b""})

        return draining

    async def _drain(self, receive: Receive) -> None:
        drained = 0
        while drained < DRAIN_FACTOR * self._max_bytes:
            message = await receive()
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                return
            drained += len(message.get("body", b""))

    @property
    def _message(self) -> str:
        return f"the body may have at most {self._max_bytes} bytes"


def _closing(send: Send) -> Send:
    """What is left of the request must not be taken for the next one."""

    async def closing(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [*message.get("headers", ()), (b"connection", b"close")]
            message = {**message, "headers": headers}
        await send(message)

    return closing


class Doorkeeper:
    """Looks at `Host` and `Origin`, which a hostile page in a user's browser cannot choose.

    * A page that rebinds its own name to this machine still sends that name as `Host`.
    * A page from elsewhere must not open WebSockets (they know no CORS) nor start or cancel streams
      blindly. Programs send no `Origin` and are not concerned.
    """

    def __init__(
        self, app: ASGIApp, allowed_hosts: Sequence[str], allowed_origins: Sequence[str]
    ) -> None:
        self._app = app
        self._hosts = frozenset(allowed_hosts)
        self._origins = frozenset(allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._host_allowed(host):
            await self._refuse(f"this gateway does not answer for host {host[:80]!r}", "Host")(
                scope, receive, send
            )
        elif origin and not self._origin_allowed(scope, host, origin):
            message = f"pages of origin {origin[:80]!r} may not use this gateway"
            await self._refuse(message, "Origin")(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _host_allowed(self, host: str) -> bool:
        return "*" in self._hosts or _host_name(host) in self._hosts

    def _origin_allowed(self, scope: Scope, host: str, origin: str) -> bool:
        if scope["type"] == "http" and scope["method"] in _SAFE_METHODS:
            return True  # CORS keeps the answer from the page
        if "*" in self._origins or origin in self._origins:
            return True
        return origin.partition("://")[2] == host

    def _refuse(self, message: str, param: str) -> ASGIApp:
        async def refused(scope: Scope, receive: Receive, send: Send) -> None:
            response = error_response(ErrorCode.INVALID_VALUE, message, param)
            response.status_code = FORBIDDEN
            if scope["type"] == "websocket":
                await receive()
                for event in _denial(response.status_code, bytes(response.body)):
                    await send(event)
            else:
                await response(scope, receive, send)

        return refused


FORBIDDEN = 403


def _denial(status: int, body: bytes) -> list[Message]:
    """ASGI's WebSocket denial response: an HTTP answer instead of the handshake."""
    return [
        {
            "type": "websocket.http.response.start",
            "status": status,
            "headers": [(b"content-type", b"application/json")],
        },
        {"type": "websocket.http.response.body", "body": body},
    ]


def _host_name(host: str) -> str:
    """ "[::1]:8000" → "::1"."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def allowed_hosts_for(host: str, configured: Sequence[str] | None) -> Sequence[str]:
    """A gateway that listens on a loopback address answers for loopback names alone."""
    if configured is not None:
        return configured
    return (*LOOPBACK_NAMES, host) if is_loopback(host) else ("*",)


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach `host`."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
