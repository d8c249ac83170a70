"""A stream as its client reads it: its events, its text, and the way back after a drop."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol, Self

import anyio

from protocol.errors import ErrorCode, WetinkError
from protocol.events import (
    Commit,
    Error,
    Finish,
    Heartbeat,
    Open,
    PartKind,
    ServerEvent,
    Stats,
    Usage,
)
from protocol.requests import GenerationRequest
from protocol.transitions import State
from wetink.errors import (
    ConnectionLost,
    ProtocolViolation,
    RequestRefused,
    StreamFailed,
    Unreachable,
)
from wetink.transports.base import Attachment, AttachRequest, Interrupted, Transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from types import TracebackType

    from protocol.events import OffsetUnit
    from protocol.received import ReceivedPart
    from protocol.receiver import Failure, Receiver
    from wetink.retry import Retry


GIVE_UP_S = 2.0
"""How long a caller that fails waits for its server to hear of it."""


class StreamView(Protocol):
    """What has been received up to now; it changes with every event."""

    @property
    def committed(self) -> str:
        """Final text of the current part."""
        ...

    @property
    def tail(self) -> str:
        """Tentative text behind it. After an interruption the old tail stands until `open`."""
        ...

    @property
    def kind(self) -> str:
        """Kind of the current part: text, reasoning or tool_call."""
        ...

    @property
    def parts(self) -> Sequence[ReceivedPart]:
        """All parts read so far; the last one is the current part."""
        ...


class Stream:
    """An asynchronous context manager that iterates over the stream's events.

    Entering starts (or attaches to) the stream. Leaving ends the reading. A generation that was
    started here is cancelled when an exception leaves (Ctrl-C and a cancelled task are ones); else
    it goes on, for whoever attaches, until the server's grace period is over. To be iterated by one
    task; `view` and `cancel` may be used from any other.

    After an interruption it resumes at its cursor by itself. Then a new `open` is among the events
    and the tail is empty; committed text is neither lost nor doubled.
    """

    def __init__(
        self,
        transport: Transport,
        origin: GenerationRequest | AttachRequest,
        receiver: Receiver,
        *,
        retry: Retry,
        owns_transport: bool,
        on_interruption: Callable[[], None] | None = None,
    ) -> None:
        self._transport = transport
        self._origin = origin
        self._retry = retry
        self._owns_transport = owns_transport
        self._on_interruption = on_interruption
        self._receiver = receiver
        self._attachment: Attachment | None = None
        self._first: ServerEvent | None = None
        self._opened: Open | None = None
        self._failure: Exception | None = None
        self._interruption: Interrupted | None = None
        self._ended = False
        self._attempts = 0
        self._cancelling = False

    @property
    def view(self) -> StreamView:
        return self._receiver

    @property
    def text(self) -> str:
        """Committed text and tail of the current part."""
        return self._receiver.committed + self._receiver.tail

    @property
    def id(self) -> str:
        """The stream's id; with `cursor`, all that `wetink.attach` needs."""
        origin = self._origin
        return origin.stream if isinstance(origin, AttachRequest) else self._open.stream or ""

    @property
    def started_here(self) -> bool:
        """Whether this one began the generation, rather than attached to it."""
        return isinstance(self._origin, GenerationRequest)

    @property
    def offsets(self) -> OffsetUnit:
        """The unit of every offset and length in its events."""
        return self._origin.offsets

    @property
    def cursor(self) -> str | None:
        return self._receiver.cursor

    @property
    def model(self) -> str:
        return self._open.model

    @property
    def seed(self) -> int | None:
        """With it the same request gives the same text again."""
        return self._open.seed

    @property
    def finish(self) -> Finish | None:
        """The server's closing event. None while the stream is not `complete`, and where this was
        attached with the cursor of a reader that had had it already.
        """
        return self._receiver.finish

    @property
    def complete(self) -> bool:
        """Whether all of the text is here, as the server confirmed."""
        return self._receiver.state is State.FINISHED

    @property
    def usage(self) -> Usage | None:
        return None if self._receiver.finish is None else self._receiver.finish.usage

    @property
    def stats(self) -> Stats | None:
        return None if self._receiver.finish is None else self._receiver.finish.stats

    async def cancel(self) -> None:
        """Ends the generation. Idempotent. Reading on gives what was committed before, and `finish`
        with the reason "cancelled". While the connection is down, the server is told on resuming.
        """
        self._cancelling = True
        if self._ended or self._attachment is None:
            return
        try:
            await self._transport.cancel(self.id)
        except Interrupted as error:
            raise ConnectionLost(f"could not cancel: {error}") from error

    async def ack(self, at: int, part: int | None = None) -> bool:
        """Tells the server that committed text up to `at` was shown, spoken or accepted: an offset
        in the stream's unit into `part`, by default the current one. May come after `finish`.

        False where it could not be said: over SSE, which has no way back, and while the connection
        is down. Raises ValueError for text that was not received as committed.
        """
        parts = self._receiver.parts
        index = parts[-1].index if part is None and parts else part or 0
        watermark = next((known.watermark for known in parts if known.index == index), -1)
        if not 0 <= at <= watermark:
            raise ValueError(
                f"an ack may not go beyond what was committed: part {index}, offset {at}"
            )
        if self._attachment is None:
            return False
        return await self._transport.acknowledge(self.id, index, at)

    async def committed(self, kind: str | None = PartKind.TEXT) -> AsyncIterator[str]:
        """Final text as it comes, of the parts of one kind (None: of all). Never taken back."""
        async for event in self:
            if isinstance(event, Commit) and event.text and kind in (None, self._receiver.kind):
                yield event.text

    async def __aenter__(self) -> Self:
        try:
            self._attachment = await self._begin()
            if self._attachment is not None:
                self._first = self._opened = await _opening(self._attachment)
        except Interrupted as error:
            await self._close()
            kind = Unreachable if error.unreachable else ConnectionLost
            raise kind(str(error)) from error
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None and self.started_here and not self._ended and self._opened is not None:
            await self._give_up()
        await self._close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ServerEvent:
        """The next event. Raises StreamFailed, ConnectionLost or ProtocolViolation after the last
        one of a stream that did not finish.
        """
        while not self._ended:
            try:
                event = await self._receive()
            except Interrupted as interruption:
                await self._resume(interruption)
                continue
            if self._take(event):
                return event
        if self._failure is not None:
            raise self._failure
        raise StopAsyncIteration

    @property
    def _open(self) -> Open:
        if self._opened is None:
            raise RuntimeError("the stream has not been opened: use `async with`")
        return self._opened

    async def _begin(self) -> Attachment | None:
        if isinstance(self._origin, GenerationRequest):
            return await self._transport.start(self._origin)
        attachment = await self._transport.attach(self._origin)
        if attachment is None:
            self._nothing_more()
        return attachment

    def _nothing_more(self) -> None:
        """The server says that this reader has had `finish`; its receiver knows whether it has."""
        self._receiver.nothing_more()
        failure = self._receiver.failure
        self._end(None if failure is None else ProtocolViolation(failure.code, failure.message))

    async def _receive(self) -> ServerEvent:
        if self._first is not None:
            event, self._first = self._first, None
            return event
        if self._interruption is not None:
            raise self._interruption
        if self._attachment is None:
            raise RuntimeError("the stream is not open: use `async with`")
        return await self._attachment.receive()

    def _take(self, event: ServerEvent) -> bool:
        """Applies one event; whether the caller shall see it."""
        before = self._receiver.cursor
        self._receiver.receive(event)
        if self._receiver.cursor != before:
            self._attempts = 0
        failure = self._receiver.failure
        if failure is not None:
            return self._fail(failure, event)
        match event:
            case Open():
                self._opened = event
            case Finish():
                self._end(None)
            case _:
                pass
        return True

    def _fail(self, failure: Failure, event: ServerEvent) -> bool:
        """The server's own error is shown to the caller; an event that does not fit is not."""
        error = event if isinstance(event, Error) and event.code == failure.code else None
        if failure.resumable:
            self._interruption = Interrupted(f"{failure.message} [{failure.code}]")
        elif error is not None:
            self._end(StreamFailed(error.code, error.message, error.at, retryable=error.retryable))
        else:
            self._end(ProtocolViolation(failure.code, failure.message))
        return error is not None

    def _end(self, failure: Exception | None) -> None:
        self._ended = True
        self._failure = failure

    async def _resume(self, interruption: Interrupted) -> None:
        """Reattaches at the cursor, or ends the stream with ConnectionLost."""
        self._receiver.interrupted()
        if self._on_interruption is not None:
            self._on_interruption()
        await self._drop_attachment()
        while self._attachment is None and not self._ended:
            self._attempts += 1
            if self._attempts > self._retry.attempts:
                self._end(
                    ConnectionLost(
                        f"the connection was lost; gave up after {self._retry.attempts} attempts to"
                        f" resume stream {self.id} at {self.cursor} ({interruption})"
                    )
                )
                return
            await anyio.sleep(self._retry.delay(self._attempts, interruption.retry_after))
            try:
                await self._reattach()
            except Interrupted as error:
                interruption = error

    async def _reattach(self) -> None:
        origin = self._origin
        request = AttachRequest(
            stream=self.id,
            cursor=self.cursor,
            policy=origin.policy,
            offsets=origin.offsets,
            include=origin.include,
        )
        try:
            attachment = await self._transport.attach(request)
        except RequestRefused as error:
            message = f"the stream cannot be resumed: {error.message}"
            at = len(self._receiver.committed)
            # A new epoch serves new requests, this stream's own among them.
            again = error.code == ErrorCode.UNKNOWN_EPOCH
            self._end(StreamFailed(error.code, message, at, retryable=again))
            return
        if attachment is None:
            self._nothing_more()
            return
        self._interruption = None
        self._attachment = attachment
        if self._cancelling:
            try:
                await self._transport.cancel(self.id)
            except Interrupted:
                await self._drop_attachment()
                raise

    async def _give_up(self) -> None:
        """Nobody wants the rest of what was started here: its server hears so at once."""
        with anyio.move_on_after(GIVE_UP_S, shield=True), contextlib.suppress(WetinkError):
            await self._transport.cancel(self.id)

    async def _drop_attachment(self) -> None:
        attachment, self._attachment = self._attachment, None
        if attachment is not None:
            with contextlib.suppress(Interrupted):
                await attachment.aclose()

    async def _close(self) -> None:
        # A cancelled task closes its connections too: trio would cut these short.
        with anyio.CancelScope(shield=True):
            await self._drop_attachment()
            if self._owns_transport:
                await self._transport.aclose()


async def _opening(attachment: Attachment) -> Open:
    """The first event of an attachment; heartbeats may come before it."""
    while True:
        match await attachment.receive():
            case Open() as event:
                return event
            case Heartbeat():
                pass
            case Error() as event:
                raise StreamFailed(event.code, event.message, event.at, retryable=event.retryable)
            case event:
                raise ProtocolViolation(
                    ErrorCode.PROTOCOL_VIOLATION, f"{type(event).__name__.lower()} before open"
                )
