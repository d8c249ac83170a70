"""`/v1/ws`: one WebSocket for many streams, in JSON or MessagePack."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, assert_never, cast

import msgspec
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocketDisconnect

from gateway.access import Quota
from gateway.access.quotas import Bucket
from gateway.errors import HTTP_STATUS, RETRYABLE, BackendError
from gateway.responses import error_response, retry_after, retry_seconds
from gateway.transports.idleness import Idleness
from protocol import cursor as cursors
from protocol.codec import (
    decode_message_json,
    decode_message_msgpack,
    encode_json,
    encode_msgpack,
)
from protocol.errors import ErrorCode, RequestError
from protocol.events import Error
from protocol.refusals import quoted
from protocol.requests import Ack, Attach, Cancel, ClientMessage, Detach, PolicySpec, Ref, Start

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.websockets import WebSocket

    from gateway.delivery import Attachment
    from gateway.service import Gateway
    from gateway.streams import Stream
    from protocol.events import ServerEvent

logger = logging.getLogger("wetink.ws")

JSON = "wetink.v1.json"
MSGPACK = "wetink.v1.msgpack"
SUBPROTOCOLS = (JSON, MSGPACK)

MESSAGES_SAVED_S = 5
"""Seconds' worth of messages that may come at once: a page attaches to many streams, then waits."""
CLOSE_SERVICE_RESTART = 1012
"""RFC 6455 registry: "the service is restarting; reconnect later"."""
CLOSE_INTERNAL_ERROR = 1011
CLOSE_NORMAL = 1000


class _Referring(msgspec.Struct):
    """As much of a message as an answer to it needs, however wrong the rest is."""

    ref: Ref | None = None


class _Codec(NamedTuple):
    field: str
    """Which ASGI field carries messages: "text" or "bytes"."""
    encode: Callable[[ServerEvent], str | bytes]
    decode: Callable[[Any], ClientMessage]
    decode_ref: Callable[[Any], _Referring]


def _encode_text(event: ServerEvent) -> str:
    return encode_json(event).decode()


_CODECS = {
    JSON: _Codec(
        "text",
        _encode_text,
        decode_message_json,
        msgspec.json.Decoder(_Referring).decode,
    ),
    MSGPACK: _Codec(
        "bytes",
        encode_msgpack,
        decode_message_msgpack,
        msgspec.msgpack.Decoder(_Referring).decode,
    ),
}


async def serve_socket(websocket: WebSocket) -> None:
    offered = cast("list[str]", websocket.scope["subprotocols"])
    chosen = next((name for name in offered if name in SUBPROTOCOLS), None)
    if offered and chosen is None:
        message = f"unknown subprotocol; allowed are {' and '.join(SUBPROTOCOLS)}"
        await websocket.send_denial_response(
            error_response(ErrorCode.INVALID_VALUE, message, "Sec-WebSocket-Protocol")
        )
        return
    gateway = cast("Gateway", websocket.app.state.gateway)
    await websocket.accept(subprotocol=chosen)
    await _Socket(websocket, gateway, _CODECS[chosen or JSON]).run()


class _Attached(NamedTuple):
    stream: Stream
    attachment: Attachment


class _Socket:
    """One connection. Reads messages in order, one at a time; a second task writes events, and each
    start waits for its admission in a task of its own, so that nothing else waits with it.

    A ref names an attachment until the client uses it for another, also after its end, so that a
    late ack or cancel is no error. At most `attachments_per_socket` are kept or starting.
    """

    def __init__(self, websocket: WebSocket, gateway: Gateway, codec: _Codec) -> None:
        self._websocket = websocket
        self._gateway = gateway
        self._codec = codec
        self._connection = gateway.connection(websocket.scope)
        self._attached: dict[str, _Attached] = {}
        self._starting: dict[str, asyncio.Task[None]] = {}
        limits = gateway.config.limits
        self._idle = Idleness(gateway.clock, limits.socket_idle_s, self._busy)
        self._streams = Quota(
            limits.streams_per_socket,
            ErrorCode.TOO_MANY_STREAMS,
            "{most} streams of this connection are generating already; try again when one ends",
        )
        rate = limits.messages_per_second_per_socket
        self._messages = Bucket(
            None if rate is None else rate * MESSAGES_SAVED_S,
            f"a connection may send {rate} messages per second",
            gateway.clock.now,
            period_s=MESSAGES_SAVED_S,
        )

    async def run(self) -> None:
        tasks: list[asyncio.Task[None]] = [
            asyncio.create_task(self._read()),
            asyncio.create_task(self._write()),
            asyncio.create_task(self._gateway.stopping()),
            asyncio.create_task(self._close_when_idle()),
        ]
        _, writing, stopping, _ = tasks
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if stopping.done() and not writing.done():
                await self._say_goodbye(writing)
        finally:
            self._idle.end()
            tasks += self._starting.values()
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for attached in self._attached.values():
                attached.attachment.leave()
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, WebSocketDisconnect):
                logger.error("WebSocket session failed", exc_info=result)
                with suppress(WebSocketDisconnect, RuntimeError):
                    await self._websocket.close(CLOSE_INTERNAL_ERROR)

    async def _say_goodbye(self, writing: asyncio.Task[None]) -> None:
        """Every stream has just ended with `shutting_down`; that still goes out, then the close,
        which also answers every start that waits.
        """
        self._connection.finish()
        await writing
        with suppress(WebSocketDisconnect, RuntimeError):
            await self._websocket.close(CLOSE_SERVICE_RESTART, "the gateway is shutting down")

    def _busy(self) -> bool:
        """Whether a stream is being read here, or waited for."""
        attached = self._attached.values()
        return bool(self._starting) or not all(each.attachment.closed for each in attached)

    async def _close_when_idle(self) -> None:
        await self._idle.wait()
        self._connection.close()
        reason = f"no stream was read and no message came for {self._idle.most_s:g} s"
        with suppress(WebSocketDisconnect, RuntimeError):
            await self._websocket.close(CLOSE_NORMAL, reason)

    async def _read(self) -> None:
        while True:
            received = await self._websocket.receive()
            if received["type"] == "websocket.disconnect":
                self._connection.close()
                return
            data = received.get(self._codec.field)
            if data is None:
                await self._refuse(_wrong_frame(self._codec), None)
                continue
            self._idle.stir()
            ref: str | None = None
            try:
                ref = self._ref(data)
                self._messages.take()
                self._connection.principal.require_in_force()
                await self._handle(self._codec.decode(data))
            except (RequestError, BackendError) as error:
                await self._refuse(error, ref)

    async def _write(self) -> None:
        while woken := await self._connection.woken():
            for attachment in woken:
                events = attachment.collect()
                for encoded in attachment.encoded(events, self._encode):
                    await self._connection.write(self._send(encoded))
                if attachment.closed:
                    attachment.leave()

    def _encode(self, events: list[ServerEvent]) -> list[str | bytes]:
        return [self._codec.encode(event) for event in events]

    async def _send(self, encoded: str | bytes) -> None:
        await self._websocket.send({"type": "websocket.send", self._codec.field: encoded})

    async def _handle(self, message: ClientMessage) -> None:
        match message:
            case Start():
                self._start(message)
            case Attach():
                self._attach(message)
            case Detach() | Cancel() if message.ref in self._starting:
                await self._withdraw(message.ref)
            case Detach():
                self._at(message.ref).attachment.leave()
                del self._attached[message.ref]
            case Cancel():
                self._at(message.ref).stream.cancel()
            case Ack():
                self._at(message.ref).attachment.acknowledge(message.part, message.at)
            case _:
                assert_never(message)

    def _start(self, message: Start) -> None:
        self._require_free(message.ref)
        policy = self._gateway.policy(message.request.policy, self._connection.principal)
        self._connection.principal.count_request()
        self._starting[message.ref] = asyncio.create_task(self._admit(message, policy))

    async def _admit(self, message: Start, policy: PolicySpec) -> None:
        """Waits until the stream is admitted and attaches to it, or says why it cannot be."""
        try:
            await self._generate(message, policy)
        except (RequestError, BackendError) as error:
            await self._refuse_start(error, message.ref)
        except Exception:
            logger.exception("a start on a WebSocket failed")
            await self._refuse_start(
                RequestError(ErrorCode.INTERNAL, "the gateway failed; the request is not to blame"),
                message.ref,
            )
        finally:
            # A withdrawn start has made room for another of the same ref.
            if self._starting.get(message.ref) is asyncio.current_task():
                del self._starting[message.ref]

    async def _refuse_start(self, error: RequestError | BackendError, ref: str) -> None:
        with suppress(WebSocketDisconnect, RuntimeError):  # gone; the reading task knows
            await self._refuse(error, ref)

    async def _generate(self, message: Start, policy: PolicySpec) -> None:
        request = message.request
        principal = self._connection.principal
        stream = await self._gateway.generate(request, policy, principal, self._streams)
        try:
            attachment = stream.attach(
                policy,
                connection=self._connection,
                unit=request.offsets,
                include=request.include,
                multiplexed=True,
                encoding=self._codec.field,
                ref=message.ref,
            )
        except RequestError:
            self._gateway.streams.discard(stream)  # its author will not learn its id
            raise
        self._attached[message.ref] = _Attached(stream, attachment)

    async def _withdraw(self, ref: str) -> None:
        """Ends a start that waits for its admission."""
        self._starting.pop(ref).cancel()
        await self._refuse(
            RequestError(ErrorCode.WITHDRAWN, "the start was withdrawn before its stream began"),
            ref,
        )

    def _attach(self, message: Attach) -> None:
        self._require_free(message.ref)
        cursor = None if message.cursor is None else cursors.parse(message.cursor)
        principal = self._connection.principal
        policy = self._gateway.policy(message.policy, principal)
        stream = self._gateway.streams.get(message.stream, principal, cursor)
        self._require_not_attached(stream)
        attachment = stream.attach(
            policy,
            connection=self._connection,
            cursor=cursor,
            unit=message.offsets,
            include=message.include,
            multiplexed=True,
            encoding=self._codec.field,
            ref=message.ref,
        )
        self._attached[message.ref] = _Attached(stream, attachment)

    def _at(self, ref: str) -> _Attached:
        if ref not in self._attached:
            state = "still starting" if ref in self._starting else "not attached"
            raise RequestError(ErrorCode.UNKNOWN_REF, f"{quoted(ref)} is {state}", "ref")
        return self._attached[ref]

    def _require_free(self, ref: str) -> None:
        """Makes room for one more attachment called `ref`."""
        attached = self._attached
        is_live = ref in attached and not attached[ref].attachment.closed
        if is_live or ref in self._starting:
            raise RequestError(
                ErrorCode.DUPLICATE_REF, f"{quoted(ref)} is in use on this connection", "ref"
            )
        if ref in attached:
            attached.pop(ref).attachment.leave()
        most = self._gateway.config.limits.attachments_per_socket
        if len(attached) + len(self._starting) >= most:
            over = next((name for name, one in attached.items() if one.attachment.closed), None)
            if over is None:
                raise RequestError(
                    ErrorCode.OVERLOADED, f"a connection carries at most {most} attachments"
                )
            attached.pop(over).attachment.leave()

    def _require_not_attached(self, stream: Stream) -> None:
        """Events name their stream, not the ref: one connection reads a stream once at a time."""
        for ref, attached in self._attached.items():
            if attached.stream is stream and not attached.attachment.closed:
                raise RequestError(
                    ErrorCode.ALREADY_ATTACHED,
                    f"this connection already reads the stream, as {quoted(ref)}; detach it first",
                    "stream",
                )

    def _ref(self, data: str | bytes) -> str | None:
        """None where there is none, or none that could be kept."""
        try:
            return self._codec.decode_ref(data).ref
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

    async def _refuse(self, error: RequestError | BackendError, ref: str | None) -> None:
        """Answers a message that cannot be served; the connection lives on."""
        event = Error(
            code=error.code.value,
            message=error.message,
            param=getattr(error, "param", None),
            retryable=error.code in RETRYABLE,
            at=0,
            ref=ref,
            retry_after_s=retry_seconds(HTTP_STATUS[error.code], retry_after(error)),
        )
        await self._send(self._codec.encode(event))


def _wrong_frame(codec: _Codec) -> RequestError:
    kind = "text" if codec.field == "text" else "binary"
    return RequestError(ErrorCode.MALFORMED_JSON, f"this subprotocol takes {kind} messages only")


def routes() -> list[WebSocketRoute]:
    return [WebSocketRoute("/v1/ws", serve_socket)]
