"""Pure ASGI middleware: what may come in at all. Nothing here touches a response on its way out."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from starlette.datastructures import Headers

from gateway.access.rules import Rule, rule_for
from gateway.responses import error_response
from gateway.service import PRINCIPAL
from protocol.errors import ErrorCode, RequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from gateway.access.hosts import Hosts
    from gateway.service import Gateway

DRAIN_S = 5.0
DRAIN_FACTOR = 4
"""Enough for a body that is somewhat too large; who sends more may lose the answer."""
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class BodyLimit:
    """Refuses a body over `limits.body_bytes` with `body_too_large`: by its declared length, or,
    sent in chunks, as soon as it has grown too long.

    The answer goes out at once, and its end only when the peer has sent the rest, or `DRAIN_FACTOR`
    times as much of it as a body may have, or has taken `DRAIN_S`. A peer that writes first and
    reads then would otherwise find its connection reset and the answer lost (RFC 9112, section
    9.6).
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = _gateway_of(scope).config.limits.body_bytes
        message = f"the body may have at most {most} bytes"
        headers = Headers(scope=scope)
        declared = headers.get("content-length", "0")
        # A peer that waits for "100 Continue" sends nothing when it is refused instead.
        waits = headers.get("expect", "").lower() == "100-continue"
        if not declared.isdecimal() or int(declared) > most:
            response = error_response(ErrorCode.BODY_TOO_LARGE, message)
            draining = send if waits else _after_draining(receive, send, DRAIN_FACTOR * most)
            await response(scope, receive, _closing(draining))
            return
        received, has_rest = 0, True

        async def limited() -> Message:
            nonlocal received, has_rest
            event = await receive()
            if event["type"] == "http.request":
                received += len(event.get("body", b""))
                has_rest = event.get("more_body", False)
                if received > most:
                    raise RequestError(ErrorCode.BODY_TOO_LARGE, message)
            return event

        async def answering(event: Message) -> None:
            await (refusing if received > most and has_rest else send)(event)

        refusing = _closing(_after_draining(receive, send, DRAIN_FACTOR * most))
        await self._app(scope, limited, answering)


def _after_draining(receive: Receive, send: Send, most: int) -> Send:
    """Sends an answer whose end waits for the rest of the request, or `most` bytes of it."""

    async def draining(message: Message) -> None:
        if message["type"] != "http.response.body" or message.get("more_body", False):
            await send(message)
            return
        await send({**message, "more_body": True})
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                await _drain(receive, most)
        await send({"type": "http.response.body", "body": b""})

    return draining


async def _drain(receive: Receive, most: int) -> None:
    drained = 0
    while drained < most:
        message = await receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return
        drained += len(message.get("body", b""))


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

    def __init__(self, app: ASGIApp, hosts: Hosts, allowed_origins: Sequence[str]) -> None:
        self._app = app
        self._hosts = hosts
        self._origins = frozenset(allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._hosts.allow(host):
            message = (
                f"this gateway does not answer for host {host[:80]!r}; whoever runs it can add "
                "the name to server.allowed_hosts"
            )
            await _refuse(scope, receive, send, _forbidden(message, "Host"))
        elif origin and not self._origin_allowed(scope, host, origin):
            message = f"pages of origin {origin[:80]!r} may not use this gateway"
            await _refuse(scope, receive, send, _forbidden(message, "Origin"))
        else:
            await self._app(scope, receive, send)

    def _origin_allowed(self, scope: Scope, host: str, origin: str) -> bool:
        if scope["type"] == "http" and scope["method"] in _SAFE_METHODS:
            return True  # CORS keeps the answer from the page
        if "*" in self._origins or origin in self._origins:
            return True
        return origin.partition("://")[2] == host


class Gate:
    """Finds out who a request comes from, and lets in whom the rule for its path lets in. Inside,
    the scope has its `Principal`.
    """

    def __init__(self, app: ASGIApp, refusal: Callable[[Scope, RequestError], Response]) -> None:
        """`refusal`: the answer to one that is refused."""
        self._app = app
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or rule_for(scope["path"]) is Rule.NOTHING:
            await self._app(scope, receive, send)
            return
        try:
            principal = await _gateway_of(scope).access.admit(scope)
            principal.connections.take()
        except RequestError as error:
            await _refuse(scope, receive, send, self._refusal(scope, error))
            return
        try:
            # Not a copy: whoever stands outside reads the route from this scope.
            scope[PRINCIPAL] = principal
            await self._app(scope, receive, send)
        finally:
            principal.connections.give()


def _gateway_of(scope: Scope) -> Gateway:
    return cast("Gateway", scope["app"].state.gateway)


def _forbidden(message: str, param: str) -> Response:
    return error_response(ErrorCode.FORBIDDEN, message, param)


async def _refuse(scope: Scope, receive: Receive, send: Send, response: Response) -> None:
    """Answers in the application's place; a WebSocket with an HTTP answer instead of a handshake
    (ASGI's denial response).
    """
    if scope["type"] != "websocket":
        await response(scope, receive, send)
        return
    await receive()
    kind = "websocket.http.response"
    head = {"type": f"{kind}.start", "status": response.status_code}
    await send({**head, "headers": response.raw_headers})
    await send({"type": f"{kind}.body", "body": bytes(response.body)})
