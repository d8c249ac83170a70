"""One WebSocket for many streams (SPEC section 7.3).

A reader task sorts incoming events to their attachments. An attachment whose reader falls more than
`MAX_WAITING_EVENTS` behind is detached on the server and interrupted here; its stream reads
what is waiting, then reattaches at its cursor. So a slow reader never holds up the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
    InvalidURI,
)
from websockets.typing import Subprotocol

from protocol.codec import decode_event_json
from protocol.errors import ErrorCode, RemoteProtocolError, WetinkError
from protocol.events import Error, Finish, Open, ServerEvent
from protocol.requests import Ack, Attach, Cancel, ClientMessage, Detach, GenerationRequest, Start
from wetink.errors import ProtocolViolation, RequestRefused
from wetink.transports.base import (
    CONNECT_TIMEOUT_S,
    RETRYABLE_REFUSALS,
    Address,
    AttachRequest,
    Interrupted,
)
from wetink.transports.refusals import refusal

if TYPE_CHECKING:
    from websockets.http11 import Response

SUBPROTOCOL = Subprotocol("wetink.v1.json")
MAX_FRAME_BYTES = 16 * 1024 * 1024
MAX_WAITING_EVENTS = 1024
_CLOSED = "the WebSocket is closed"
_MessageForRef: TypeAlias = Callable[[str], ClientMessage]


class WebSocketAttachment:
    """Events of one stream, in order, until the connection or the stream ends."""

    def __init__(self, transport: WebSocketTransport, ref: str) -> None:
        self.ref = ref
        self.stream: str | None = None
        self.ended = False
        """The server sent `finish` or `error`, read or not: there is nothing left to ask for."""
        self._transport = transport
        self._waiting: deque[ServerEvent] = deque()
        self._failure: WetinkError | None = None
        self._changed = asyncio.Event()

    @property
    def full(self) -> bool:
        return len(self._waiting) >= MAX_WAITING_EVENTS

    def deliver(self, event: ServerEvent) -> None:
        self._waiting.append(event)
        self.ended = isinstance(event, Finish | Error)
        self._changed.set()

    def fail(self, failure: WetinkError) -> None:
        """What is waiting can still be received; then `failure` is raised."""
        self._failure = self._failure or failure
        self._changed.set()

    async def first(self) -> ServerEvent:
        """Waits for the answer to `start` or `attach`, and leaves it to be received."""
        event = await self.receive()
        self._waiting.appendleft(event)
        return event

    async def receive(self) -> ServerEvent:
        while not self._waiting:
            if self._failure is not None:
                raise self._failure
            self._changed.clear()
            await self._changed.wait()
        return self._waiting.popleft()

    async def aclose(self) -> None:
        await self._transport.detach(self)


class WebSocketTransport:
    """Connects on first use, and again on the first use after the connection was lost."""

    def __init__(self, url: str, *, headers: Mapping[str, str] | None = None) -> None:
        self._url = Address.parse(url).websocket + "/v1/ws"
        self._headers = headers
        self._socket: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None
        self._connecting = asyncio.Lock()
        self._refs = itertools.count(1)
        self._by_ref: dict[str, WebSocketAttachment] = {}
        self._by_stream: dict[str, WebSocketAttachment] = {}

    async def start(self, request: GenerationRequest) -> WebSocketAttachment:
        attachment = await self._begin(lambda ref: Start(ref, request))
        answer = await self._answer(attachment, Cancel)
        if isinstance(answer, Error):
            raise _refused(answer)
        return attachment

    async def attach(self, request: AttachRequest) -> WebSocketAttachment:
        attachment = await self._begin(
            lambda ref: Attach(
                ref=ref,
                stream=request.stream,
                cursor=request.cursor,
                policy=request.policy,
                offsets=request.offsets,
                include=request.include,
            )
        )
        answer = await self._answer(attachment, Detach)
        if isinstance(answer, Error):
            if answer.retryable or answer.code in RETRYABLE_REFUSALS:
                raise Interrupted(
                    f"{answer.message} [{answer.code}]", retry_after=answer.retry_after_s
                )
            raise _refused(answer)
        return attachment

    async def cancel(self, stream: str) -> None:
        """Only for a stream attached here; `Interrupted` when it is not attached at present."""
        attachment = self._by_stream.get(stream)
        if attachment is not None and attachment.ended:
            return
        if attachment is None or self._socket is None:
            raise Interrupted("the stream is not attached to this connection")
        await self._send(self._socket, Cancel(attachment.ref))

    async def acknowledge(self, stream: str, part: int, at: int) -> bool:
        """Also for a stream that has ended: its `ref` stays known (SPEC section 7.3.5)."""
        attachment = self._by_stream.get(stream)
        if attachment is None or self._socket is None:
            return False
        try:
            await self._send(self._socket, Ack(ref=attachment.ref, part=part, at=at))
        except Interrupted:
            return False
        return True

    async def detach(self, attachment: WebSocketAttachment) -> None:
        await self._end(attachment, Detach(attachment.ref))

    async def _end(self, attachment: WebSocketAttachment, message: Cancel | Detach) -> None:
        if self._by_ref.get(attachment.ref) is not attachment:
            return
        self._forget(attachment)
        if self._socket is not None and not attachment.ended:
            with contextlib.suppress(Interrupted):
                await self._send(self._socket, message)

    async def aclose(self) -> None:
        socket = self._socket  # its reader forgets it on the way out
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader
        if socket is not None:
            await socket.close()
            self._socket = None

    async def _begin(self, message: _MessageForRef) -> WebSocketAttachment:
        """Registers a new attachment and sends the message that asks for it."""
        socket = await self._connected()
        attachment = WebSocketAttachment(self, str(next(self._refs)))
        self._by_ref[attachment.ref] = attachment
        try:
            await self._send(socket, message(attachment.ref))
        except Interrupted:
            self._forget(attachment)
            raise
        return attachment

    async def _answer(
        self, attachment: WebSocketAttachment, give_up: type[Cancel | Detach]
    ) -> ServerEvent:
        """The first event of `attachment`; nothing is left behind by who stops waiting for it, nor
        by a refusal. `give_up`: nobody else will ever know the id of a stream that was started, so
        it ends with who wanted it; its `ref` is enough for that.
        """
        try:
            answer = await attachment.first()
        except BaseException:
            await self._end(attachment, give_up(attachment.ref))
            raise
        if isinstance(answer, Error):
            self._forget(attachment)
        return answer

    async def _connected(self) -> ClientConnection:
        async with self._connecting:
            if self._socket is None:
                self._socket = await self._connect()
                self._reader = asyncio.create_task(self._read(self._socket))
            return self._socket

    async def _connect(self) -> ClientConnection:
        try:
            socket = await connect(
                self._url,
                subprotocols=[SUBPROTOCOL],
                additional_headers=self._headers,
                open_timeout=CONNECT_TIMEOUT_S,
                max_size=MAX_FRAME_BYTES,
            )
        except InvalidStatus as error:
            raise _refused_handshake(error.response) from error
        except InvalidMessage as error:
            # Cut off in the middle of the handshake.
            raise Interrupted(str(error)) from error
        except (OSError, TimeoutError) as error:
            raise Interrupted(str(error) or type(error).__name__, unreachable=True) from error
        except InvalidURI as error:
            raise RequestRefused(ErrorCode.INVALID_VALUE, str(error), "url") from error
        except InvalidHandshake as error:
            raise ProtocolViolation(ErrorCode.PROTOCOL_VIOLATION, str(error)) from error
        if socket.subprotocol != SUBPROTOCOL:
            await socket.close()
            raise ProtocolViolation(
                ErrorCode.PROTOCOL_VIOLATION, f"{self._url} does not speak {SUBPROTOCOL}"
            )
        return socket

    async def _read(self, socket: ClientConnection) -> None:
        failure: WetinkError = Interrupted(_CLOSED)
        try:
            async for frame in socket:
                event = decode_event_json(frame)
                if event is not None:
                    await self._route(event)
            failure = Interrupted(_close_reason(socket))
        except ConnectionClosed as error:
            failure = Interrupted(str(error))
        except RemoteProtocolError as error:
            failure = ProtocolViolation(error.code, error.message)
            await socket.close(1002)
        finally:
            self._socket = None
            self._fail_all(failure)

    async def _route(self, event: ServerEvent) -> None:
        attachment = self._attachment_of(event)
        if attachment is None:
            if isinstance(event, Error) and event.ref is None and event.stream is None:
                self._fail_all(Interrupted(f"{event.message} [{event.code}]"))
            return
        if isinstance(event, Error) and event.stream is None and attachment.stream is not None:
            return  # answers a late `ack` or `cancel`, and ends nothing else (SPEC section 7.3.4)
        if isinstance(event, Open) and event.stream is not None:
            attachment.stream = event.stream
            self._by_stream[event.stream] = attachment
        if attachment.full:
            attachment.fail(Interrupted("the reader fell behind"))
            await self.detach(attachment)
            return
        attachment.deliver(event)

    def _attachment_of(self, event: ServerEvent) -> WebSocketAttachment | None:
        if isinstance(event, Open | Error) and event.ref is not None:
            return self._by_ref.get(event.ref)
        return None if event.stream is None else self._by_stream.get(event.stream)

    def _fail_all(self, failure: WetinkError) -> None:
        for attachment in list(self._by_ref.values()):
            if not attachment.ended:  # else its stream is told all the same, and knows by that
                attachment.fail(failure)
                self._forget(attachment)

    def _forget(self, attachment: WebSocketAttachment) -> None:
        self._by_ref.pop(attachment.ref, None)
        if attachment.stream is not None and self._by_stream.get(attachment.stream) is attachment:
            del self._by_stream[attachment.stream]

    async def _send(self, socket: ClientConnection, message: ClientMessage) -> None:
        try:
            await socket.send(msgspec.json.encode(message).decode())
        except ConnectionClosed as error:
            raise Interrupted(str(error)) from error


def _refused(answer: Error) -> RequestRefused:
    return RequestRefused(
        answer.code, answer.message, answer.param, retry_after_s=answer.retry_after_s
    )


def _refused_handshake(response: Response) -> RequestRefused | Interrupted:
    """An HTTP answer in the handshake's place; what passes with time is an interruption."""
    refused = refusal(
        response.status_code, response.reason_phrase, response.headers, bytes(response.body or b"")
    )
    if isinstance(refused, RequestRefused) and refused.code in RETRYABLE_REFUSALS:
        return Interrupted(str(refused), retry_after=refused.retry_after_s)
    return refused


def _close_reason(socket: ClientConnection) -> str:
    return f"the server closed the WebSocket ({socket.close_code} {socket.close_reason})".replace(
        " )", ")"
    )
