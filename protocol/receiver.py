"""The receiving side of one stream, sans-I/O (SPEC section 5).

It lives through any number of attachments: `interrupted` ends one, the next `open` continues.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple, assert_never

from protocol import cursor as cursors
from protocol import units
from protocol.cursor import Cursor, Mark
from protocol.errors import ErrorCode, LocalProtocolError, RemoteProtocolError
from protocol.events import (
    PROTOCOL_VERSION,
    Commit,
    Error,
    Finish,
    Heartbeat,
    OffsetUnit,
    Open,
    Part,
    PartKind,
    Retract,
    ServerEvent,
    Tentative,
)
from protocol.received import ReceivedPart
from protocol.transitions import Interruption, NothingMore, State, follow


class Change(NamedTuple):
    """What an event did to the visible text: first `erased` vanished from its end, then `appended`
    came. `committed` is the text that became final, visible before or not.
    """

    committed: str = ""
    erased: str = ""
    cause: str | None = None
    """Why text vanished; None with `erased` text: a new attachment began without the old tail."""
    appended: str = ""


class Failure(NamedTuple):
    """Why reading ended: the server's `error`, or this reader's own verdict on what it sent.

    `retryable`: trying again may help. `ended`: the stream has failed, so that only its request can
    be tried again.
    """

    code: str
    message: str
    retryable: bool
    ended: bool = False

    @property
    def resumable(self) -> bool:
        """Whether reattaching at the cursor may help."""
        return self.retryable and not self.ended


class Receiver:
    """What a reader holds of one stream. A peer's fault never raises: it sets `failure`."""

    def __init__(
        self,
        unit: OffsetUnit = OffsetUnit.CODEPOINT,
        *,
        cursor: str | None = None,
        held: str | None = None,
    ) -> None:
        """A reader that resumes gives its `cursor` and, if it kept it, the committed text it holds
        of that part. Without all the text from the beginning the digest cannot be checked.

        Raises RequestError(BAD_CURSOR), and LocalProtocolError if `held` does not end at `cursor`.
        """
        self.unit = unit
        self.state = State.CONNECTING
        self.stream: str | None = None
        self.parts: list[ReceivedPart] = []
        """From the part of the first `open` on."""
        self.failure: Failure | None = None
        self.finish: Finish | None = None
        self._cursor = cursors.parse(cursor) if cursor is not None else None
        self._held = held or ""
        position = self._cursor or Cursor(0, 0, 0)
        self._epoch = position.epoch
        if held is not None and units.length(held, unit) != position.offset:
            raise LocalProtocolError(f"the text held does not end at {position}")
        self._whole = position.part == 0 and (held is not None or position.offset == 0)
        self._sha256 = hashlib.sha256(self._held.encode())

    @property
    def cursor(self) -> str | None:
        """Where to resume; None before the first `open` of a reader that began without one."""
        return None if self._cursor is None else str(self._cursor)

    @property
    def committed(self) -> str:
        """Committed text of the current part."""
        return self.parts[-1].committed if self.parts else self._held

    @property
    def tail(self) -> str:
        return self.parts[-1].tail if self.parts else ""

    @property
    def verified_tail(self) -> str:
        """The beginning of the tail, as far as it is verified and only waits for the policy."""
        return self.parts[-1].verified_tail if self.parts else ""

    @property
    def kind(self) -> str:
        """Kind of the current part."""
        return self.parts[-1].kind if self.parts else PartKind.TEXT

    def receive(self, event: ServerEvent) -> Change | None:
        """Apply one event; None if the visible text and the committed text are as before.

        After a failure, events are ignored until `interrupted`.
        """
        if self.state is State.FAILED:
            return None
        try:
            return self._apply(event)
        except RemoteProtocolError as error:
            return self.distrust(error)

    def distrust(self, error: RemoteProtocolError) -> Change | None:
        """The server broke the protocol, be it in the bytes (codec, SSE parser) or in an event."""
        if self.state is State.FAILED:
            return None
        return self._fail(Failure(error.code, error.message, error.code is ErrorCode.GAP))

    def interrupted(self) -> None:
        """The transport ended. Without `finish` that is never an end of text: reattach at `cursor`.

        The tail stays visible until the next `open`, which begins without one. A failure stays
        unless it is resumable.
        """
        if self.failure is not None and not self.failure.resumable:
            return
        self.state = self._after(Interruption)
        self.failure = None

    def nothing_more(self) -> None:
        """A resume was answered with HTTP 204: the text held is complete. The server is at fault
        where this reader's cursor does not say that it has had `finish`.
        """
        state = self._after(NothingMore)
        try:
            self._require_finish_was_told()
        except RemoteProtocolError as error:
            self.distrust(error)
        else:
            self.state = state

    def _require_finish_was_told(self) -> None:
        if self._cursor is None or self._cursor.mark is not Mark.FINISH:
            raise RemoteProtocolError(
                f"nothing more shall come after {self._cursor}, but there was no finish"
            )

    def _after(self, step: type[Interruption] | type[NothingMore]) -> State:
        """The state after what the caller reports of the transport."""
        state = follow(self.state, step)
        if state is None:
            raise LocalProtocolError(f"{step.__name__} in state {self.state.name}")
        return state

    def _apply(self, event: ServerEvent) -> Change | None:
        state = follow(self.state, type(event))
        if state is None:
            raise RemoteProtocolError(f"{type(event).__name__.lower()} while {self.state.name}")
        change: Change | None = None
        match event:
            case Commit():
                change = self._commit(event)
            case Tentative():
                self.parts[-1].append(event)
                change = Change(appended=event.text)
            case Retract():
                change = Change(erased=self.parts[-1].retract(event), cause=event.cause)
            case Open():
                change = self._open(event)
            case Part():
                self._begin_part(event)
            case Finish():
                self._finish(event)
            case Error():
                return self._end(event)
            case Heartbeat():
                pass
            case _:
                assert_never(event)
        self.state = state
        return change

    def _open(self, event: Open) -> Change | None:
        self._require_same_terms(event)
        self._require_open_at_cursor(event)
        self.stream = event.stream
        self._epoch = event.epoch
        self._cursor = Cursor(event.epoch, event.part, event.at)
        if self.parts:
            erased = self.parts[-1].drop_tail()
            return Change(erased=erased) if erased else None
        self.parts.append(
            ReceivedPart(
                event.part,
                event.kind,
                event.name,
                self.unit,
                held=self._held,
                watermark=event.at,
            )
        )
        return None

    def _require_same_terms(self, event: Open) -> None:
        """Version and unit are those asked for, the stream is the one read so far."""
        if event.v != PROTOCOL_VERSION:
            raise RemoteProtocolError(
                f"the server speaks version {event.v}, not {PROTOCOL_VERSION}"
            )
        if event.offsets is not self.unit:
            raise RemoteProtocolError(f"offsets are in {event.offsets}, not in {self.unit}")
        if self.stream not in (None, event.stream):
            raise RemoteProtocolError(f"this is stream {event.stream}, expected {self.stream}")

    def _require_open_at_cursor(self, event: Open) -> None:
        expected = self._cursor or Cursor(event.epoch, 0, 0)
        found = Cursor(event.epoch, event.part, event.at)
        if found != expected._replace(mark=None):
            raise RemoteProtocolError(
                f"the stream opens at {found}, expected {expected}", ErrorCode.GAP
            )

    def _commit(self, event: Commit) -> Change:
        part = self.parts[-1]
        erased, appended = part.commit(event)
        self._sha256.update(event.text.encode())
        self._move(part)
        cause = None if event.retract is None else event.retract.cause
        return Change(event.text, erased, cause, appended)

    def _begin_part(self, event: Part) -> None:
        part = self.parts[-1]
        part.require_empty_tail()
        part.require_at(event.part, part.index + 1)
        part.complete = True
        self.parts.append(ReceivedPart(event.part, event.kind, event.name, self.unit))
        self._move(self.parts[-1])

    def _finish(self, event: Finish) -> None:
        part = self.parts[-1]
        part.require_empty_tail()
        part.require_at(event.at, part.watermark)
        self._require_digest(event)
        part.complete = True
        self.finish = event
        self._cursor = Cursor(self._epoch, part.index, part.watermark, Mark.FINISH)

    def _require_digest(self, event: Finish) -> None:
        if self._whole and event.digest != self._sha256.hexdigest():
            raise RemoteProtocolError("the digest does not match the text received")

    def _end(self, event: Error) -> Change | None:
        if self.state is State.OPEN:
            part = self.parts[-1]
            part.require_at(event.at, part.watermark)
        return self._fail(Failure(event.code, event.message, event.retryable, event.ended))

    def _fail(self, failure: Failure) -> Change | None:
        """Committed text stands; the tail is gone, for a tail without a stream means nothing."""
        self.state = State.FAILED
        self.failure = failure
        erased = self.parts[-1].drop_tail() if self.parts else ""
        return Change(erased=erased, cause=failure.code) if erased else None

    def _move(self, part: ReceivedPart) -> None:
        """The cursor follows the watermark."""
        self._cursor = Cursor(self._epoch, part.index, part.watermark)
