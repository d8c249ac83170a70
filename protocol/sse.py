"""Server-sent events: framing and an incremental parser (SPEC section 7.2; WHATWG HTML, section 9.2
"Server-sent events").
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from protocol import units
from protocol.codec import encode_json
from protocol.cursor import Mark
from protocol.errors import RemoteProtocolError
from protocol.events import (
    Commit,
    Error,
    Finish,
    OffsetUnit,
    Open,
    Part,
    Retract,
    ServerEvent,
    Tentative,
)

if TYPE_CHECKING:
    from protocol.cursor import Cursor

# The longest event a reader accepts: a resume delivers all missed text as one commit.
MAX_EVENT_BYTES = 16 * 1024 * 1024

# Longer waits than a day are nonsense; longer numbers are an attack on the integer parser.
_MAX_RETRY_DIGITS = 8

_BOM = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"\r\n|\r|\n")


def encode(event: ServerEvent, cursor: Cursor | None) -> bytes:
    """One event as a frame, with `cursor` as its id. JSON never holds a line break.

    No `event` field: a browser has events `open` and `error` of its own.
    """
    return _frame(event, None if cursor is None else str(cursor).encode())


def _frame(event: ServerEvent, id_: bytes | None) -> bytes:
    if id_ is None:
        return b"data: %b\n\n" % encode_json(event)
    return b"id: %b\ndata: %b\n\n" % (id_, encode_json(event))


def comment(text: str = "") -> bytes:
    """A line readers ignore. `text` without line breaks."""
    return b": " + text.encode() + b"\n\n"


def retry(milliseconds: int) -> bytes:
    """How long a reader should wait before it reconnects."""
    return b"retry: %d\n\n" % milliseconds


class EventWriter:
    """Frames of one attachment. The id after each event follows from the events themselves: `open`,
    `commit`, `part` and `finish` carry one, because the watermark is known to stand there; so does
    an `error` that a resume would only meet again.
    """

    def __init__(self) -> None:
        self._length = units.length_in(OffsetUnit.CODEPOINT)
        self._epoch = 0
        self._position = b""
        """Epoch and part of the next id, which most events leave as they are."""

    def encode(self, event: ServerEvent) -> bytes:
        match event:
            case Commit():
                end = event.at + self._length(event.text)
                return b"id: %b%d\ndata: %b\n\n" % (self._position, end, encode_json(event))
            case Tentative() | Retract():
                return _frame(event, None)
            case Open():
                self._length = units.length_in(event.offsets)
                self._epoch = event.epoch
                self._begin(event.part)
                return self._at(event, event.at)
            case Part():
                self._begin(event.part)
                return self._at(event, 0)
            case Finish():
                return self._at(event, event.at, Mark.FINISH)
            case Error(resumable=False):
                return self._at(event, event.at, Mark.ERROR)
            case _:
                return _frame(event, None)

    def _begin(self, part: int) -> None:
        self._position = b"%d.%d." % (self._epoch, part)

    def _at(self, event: ServerEvent, offset: int, mark: Mark | None = None) -> bytes:
        id_ = b"%b%d" % (self._position, offset)
        return _frame(event, id_ if mark is None else b"%b.%b" % (id_, mark.encode()))


class SSEEvent(NamedTuple):
    event: str
    data: str
    id: str
    """The last id the stream has set so far, not this event's alone; "" before the first."""


class SSEParser:
    """Bytes in, events out, whatever the chunks. Never raises: what cannot be accepted sets
    `failure`, after which nothing more is parsed.

    The caller drops the parser at the end of the transport; an event not closed by an empty line is
    thereby discarded.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self.failure: RemoteProtocolError | None = None
        self.retry: int | None = None
        """Milliseconds, as last set by the stream."""
        self.last_event_id = ""
        """Where to resume: set when an event is complete, never by half of one."""
        self._max_event_bytes = max_event_bytes
        self._line = bytearray()
        self._after_cr = False
        self._begun = False
        self._id = ""
        self._event = ""
        self._data: list[str] = []
        self._data_bytes = 0

    def feed(self, chunk: bytes) -> list[SSEEvent]:
        """Events completed by `chunk`. An event over `max_event_bytes` is a failure."""
        events: list[SSEEvent] = []
        if self.failure is not None or not chunk:
            return events
        start = 1 if self._after_cr and chunk[0] == 0x0A else 0
        self._after_cr = chunk[-1] == 0x0D
        try:
            for end in _LINE_END.finditer(chunk, start):
                self._take(chunk[start : end.start()])
                self._end_line(events)
                start = end.end()
            self._take(chunk[start:])
        except RemoteProtocolError as failure:
            self.failure = failure
        return events

    def _take(self, piece: bytes) -> None:
        """Add to the present line."""
        if self._data_bytes + len(self._line) + len(piece) > self._max_event_bytes:
            raise RemoteProtocolError(f"an event exceeds {self._max_event_bytes} bytes")
        self._line += piece

    def _end_line(self, events: list[SSEEvent]) -> None:
        line = bytes(self._line)
        self._line.clear()
        if not self._begun:
            self._begun = True
            line = line.removeprefix(_BOM)
        if not line:
            self._dispatch(events)
        elif not line.startswith(b":"):
            name, _, value = line.partition(b":")
            self._field(name, value.removeprefix(b" "))

    def _field(self, name: bytes, value: bytes) -> None:
        try:
            text = value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise RemoteProtocolError(f"a field is not UTF-8: {error}") from None
        match name:
            case b"data":
                self._data.append(text)
                # The line feed counts too, or empty lines would be free.
                self._data_bytes += len(value) + 1
            case b"event":
                self._event = text
            case b"id":
                if "\0" not in text:
                    self._id = text
            case b"retry":
                if value.isdigit() and len(value) <= _MAX_RETRY_DIGITS:
                    self.retry = int(value)
            case _:
                pass

    def _dispatch(self, events: list[SSEEvent]) -> None:
        self.last_event_id = self._id
        if self._data:
            data = "\n".join(self._data)
            events.append(SSEEvent(self._event or "message", data, self.last_event_id))
        self._event = ""
        self._data.clear()
        self._data_bytes = 0
