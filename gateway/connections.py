"""uvicorn's two protocols with the bounds they lack: how much of a request may come before anybody
looks at it, and how long it may take.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from gateway.delivery.connection import ABORT_EXTENSION
from gateway.errors import HTTP_STATUS, error_body
from gateway.responses import refusal_headers
from protocol.errors import ErrorCode, RequestError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from gateway.access import Quota
    from gateway.access.accounts import Addresses
    from gateway.config import LimitsConfig

LINGER_S = 2.0
"""How long a refused peer gets to read why. Closing at once, with its bytes unread, would reset the
connection and lose the answer on its way (RFC 9112, section 9.6)."""


class Bounds:
    """The limits of a server's connections, and the connections that there are: a bounded number
    altogether, and from each address.
    """

    def __init__(self, limits: LimitsConfig) -> None:
        self.limits = limits
        """May be replaced."""
        self.addresses: Addresses | None = None
        """Where they are counted by address."""
        self._open: dict[asyncio.BaseTransport, Quota | None] = {}

    def enter(self, transport: asyncio.BaseTransport, scope: Mapping[str, Any]) -> None:
        """A connection begins; `scope`: what ASGI will say of it.

        Raises RequestError (`too_many_connections`).
        """
        most = self.limits.connections
        if len(self._open) >= most:
            raise RequestError(
                ErrorCode.TOO_MANY_CONNECTIONS, f"{most} connections are open already; try again"
            )
        quota = None if self.addresses is None else self.addresses.of(scope).connections
        if quota is not None:
            quota.take()
        self._open[transport] = quota

    def leave(self, transport: asyncio.BaseTransport) -> None:
        """It has ended. Idempotent."""
        quota = self._open.pop(transport, None)
        if quota is not None:
            quota.give()


class HttpProtocol(HttpToolsProtocol):
    """Bounds headers and the time a request takes to arrive; lets the application cut a connection
    whose reader is stuck (`Connection.abort`).
    """

    bounds: Bounds  # set by `protocols`

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._head_bytes = 0
        """Received while the headers of a request have not ended."""
        self._size = 0
        """Of its request line and headers that are complete."""
        self._refusal = (ErrorCode.INVALID_VALUE, "this is not an HTTP request")
        """What is said when the parser gives up."""
        self._refused = False
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        self._arm()
        try:
            self.bounds.enter(transport, {"client": self.client})
        except RequestError as error:
            self._refuse(error.code, error.message)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self.bounds.leave(self.transport)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return  # read and dropped until the peer has had its answer
        if self._deadline is None and self._is_idle():
            self._arm()
        was_in_head = self._in_head
        super().data_received(data)
        # What a header that does not end has grown to is known to the parser alone.
        if was_in_head and self._in_head and not self._refused:
            self._head_bytes += len(data)
            if self._head_bytes > self.bounds.limits.header_bytes:
                self._refuse(ErrorCode.HEADERS_TOO_LARGE, self._headers_message)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = self._size = 0
        extensions: dict[str, dict[object, object]] = {
            ABORT_EXTENSION: {"abort": self.transport.abort}
        }
        self.scope["extensions"] = extensions

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._count(len(name) + len(value))

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._disarm()
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        self._disarm()
        super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        """uvicorn's, for whatever made the parser give up."""
        self._refuse(*self._refusal)

    @property
    def _headers_message(self) -> str:
        return (
            f"a request may have at most {self.bounds.limits.headers} headers and "
            f"{self.bounds.limits.header_bytes} bytes of request line and headers"
        )

    def _count(self, size: int) -> None:
        """Raises, which ends the parsing, when there is too much of it."""
        self._size += size
        if (
            self._size > self.bounds.limits.header_bytes
            or len(self.headers) > self.bounds.limits.headers
        ):
            self._refusal = (ErrorCode.HEADERS_TOO_LARGE, self._headers_message)
            raise ValueError(self._headers_message)

    def _is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self._cycle is None or self._cycle.response_complete

    @property
    def _cycle(self) -> RequestResponseCycle | None:
        """uvicorn says that there always is one; before the first request there is none."""
        return self.cycle

    def _arm(self) -> None:
        self._deadline = self.loop.call_later(self.bounds.limits.receive_s, self._time_out)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _time_out(self) -> None:
        self._deadline = None
        seconds = self.bounds.limits.receive_s
        self._refuse(ErrorCode.REQUEST_TIMEOUT, f"a request must arrive whole within {seconds:g} s")

    def _refuse(self, code: ErrorCode, message: str) -> None:
        """Answers in the application's place and closes, once the peer has had time to read it."""
        self._disarm()
        self._refused = True
        cycle = self._cycle
        if cycle is not None and not cycle.response_complete:
            if cycle.response_started:
                # An answer is on its way; a second one would be taken for a part of it.
                self.transport.abort()
                return
            cycle.disconnected = True  # what the application says now comes too late
            cycle.message_event.set()
        body = error_body(code, message)
        status = HTTPStatus(HTTP_STATUS[code])
        headers = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "connection": "close",
            **(refusal_headers(status.value) or {}),
        }
        lines = [f"HTTP/1.1 {status.value} {status.phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.abort)


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """Lets the application cut a connection whose reader is stuck."""

    bounds: Bounds  # set by `protocols`

    def connection_lost(self, exc: Exception | None) -> None:
        self.bounds.leave(self.transport)
        super().connection_lost(exc)

    async def run_asgi(self) -> None:
        extensions: Any = self.scope.setdefault("extensions", {})
        extensions[ABORT_EXTENSION] = {"abort": self.transport.abort}
        await super().run_asgi()


def protocols(bounds: Bounds) -> tuple[type[HttpProtocol], type[WebSocketProtocol]]:
    """Both protocols within these bounds; uvicorn takes classes."""
    http = type("BoundedHttp", (HttpProtocol,), {"bounds": bounds})
    websocket = type("BoundedWebSocket", (WebSocketProtocol,), {"bounds": bounds})
    return http, websocket
