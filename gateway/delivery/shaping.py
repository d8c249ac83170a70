"""Delivery that says nothing by its sizes and times: one piece of `pad` bytes per tick, whatever
there is to say, until the end.

Unshaped, an event leaves whenever tokens were verified, as long as its text: whoever sees encrypted
packets learns how much was accepted at each step, and from that what was written (arXiv
2411.01076). Shaped, he learns how long the attachment lasted, and where more than `pad` bytes had
to go at once (SPEC section 5.6).

Nothing is asked of the ledger before what was owed earlier has left, so what comes in between
merges, as it does for a slow reader.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any, cast

from gateway.delivery.attachment import Attachment
from protocol.errors import ErrorCode
from protocol.events import Heartbeat
from protocol.ledger import Failed

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.clock import Clock, Timer
    from gateway.delivery.connection import Line, Source
    from protocol.events import ServerEvent
    from protocol.ledger import Ledger
    from protocol.requests import Shape
    from protocol.sender import Sender

_JSON_PAD, _JSON_END = ',"pad":"', '"}'
_MSGPACK_PAD = b"\xa3pad\xdb"
"""The name `pad`, and the mark of a string whose length has four bytes, however short it is."""
_MSGPACK_LENGTH = 4
_FIXMAP, _MAP16 = 0x80, 0xDE
_MOST_IN_FIXMAP = 15
"""Fields; maps of more have a longer head."""
_GRID_TOLERANCE = 1e-6
"""Of a tick: a timer that rings a rounding error early belongs to the tick it was set for."""


def with_comment(data: bytes, size: int) -> bytes:
    """An event stream's bytes, made `size` long by a comment, which its readers skip.

    What there is of an event in `data` must be complete if anything has to be added.
    """
    lacking = size - len(data)
    if lacking == 1:
        return data + b"\n"  # an empty line between events
    return data + b":" + b" " * (lacking - 2) + b"\n" if lacking else data


def padded_stream(data: bytes, pad: int) -> bytes:
    """An event stream's bytes, made a multiple of `pad` long."""
    return with_comment(data, math.ceil(len(data) / pad) * pad)


def padded_message(message: str | bytes, pad: int) -> str | bytes:
    """One event as JSON (str) or MessagePack (bytes), made a multiple of `pad` bytes long by a
    field `pad`, which its readers skip.
    """
    if isinstance(message, str):
        least = len(message.encode()) - 1 + len(_JSON_PAD) + len(_JSON_END)
        filling = "0" * (-least % pad)
        return f"{message[:-1]}{_JSON_PAD}{filling}{_JSON_END}"
    head, fields = _with_one_more(message)
    filling = b"0" * (-(len(head) + len(fields) + len(_MSGPACK_PAD) + _MSGPACK_LENGTH) % pad)
    length = len(filling).to_bytes(_MSGPACK_LENGTH, "big")
    return head + fields + _MSGPACK_PAD + length + filling


def _with_one_more(message: bytes) -> tuple[bytes, bytes]:
    """The head of a MessagePack map that has one more field than `message`, and its fields."""
    if message[0] == _MAP16:
        count, fields = int.from_bytes(message[1:3], "big"), message[3:]
    else:
        count, fields = message[0] - _FIXMAP, message[1:]
    if count < _MOST_IN_FIXMAP:
        return bytes([_FIXMAP + count + 1]), fields
    return bytes([_MAP16]) + (count + 1).to_bytes(2, "big"), fields


class _Deaf:
    """A connection that cannot be woken by what an attachment hears."""

    def __init__(self, line: Line) -> None:
        self._line = line

    @property
    def stuck_since(self) -> float | None:
        return self._line.stuck_since

    def wake(self, source: Source) -> None:
        """In vain: the next tick comes anyway."""

    def abort(self) -> None:
        self._line.abort()


class ShapedAttachment(Attachment):
    """Wakes its connection at every tick, and always has one piece for it: the bytes of an event
    stream, cut and filled up to `pad`; or one message of a WebSocket, filled up to a multiple of
    it. Ticks are multiples of `tick_ms` on the clock.

    Bounded: it keeps what one look at the ledger gave.
    """

    def __init__(
        self,
        sender: Sender,
        ledger: Ledger,
        clock: Clock,
        connection: Line,
        *,
        shape: Shape,
        one_at_a_time: bool,
        **others: Any,
    ) -> None:
        """`one_at_a_time`: whether its transport sends each event by itself. `others`: as for any
        attachment.
        """
        super().__init__(sender, ledger, clock, _Deaf(connection), **others)
        self.encoded = self._encoded
        self.pad = self._pad = shape.pad
        self._idle: list[ServerEvent] = [Heartbeat(stream=sender.edition.tag)]
        self._tick_s = shape.tick_ms / 1000
        self._line = connection
        self._one_at_a_time = one_at_a_time
        self._owed: deque[ServerEvent] = deque()
        self._rest = b""
        """Of an event stream: what is encoded and has not left."""
        self._hurries = False
        self._ticking: Timer = self._set_tick()

    def notify(self, now: float) -> None:
        super().notify(now)
        ending = self._ledger.ending
        if isinstance(ending, Failed) and ending.code == ErrorCode.SHUTTING_DOWN:
            # No tick may come any more; and when a gateway stops is no secret of a stream's.
            self._hurries = True
            self._line.wake(self)

    def collect(self) -> list[ServerEvent]:
        """What this tick says: a heartbeat where there is nothing."""
        if self._left:
            return []
        if not self._owed and not self._rest:
            self._owed.extend(super().collect())
        if self._one_at_a_time and self._owed and not self._hurries:
            events = [self._owed.popleft()]
        else:
            events = list(self._owed)
            self._owed.clear()
        self.closed = self._sender.closed and not self._owed
        return events or self._idle

    def leave(self) -> None:
        self._ticking.cancel()
        super().leave()

    def _encoded(
        self, events: list[ServerEvent], encode: Callable[[list[ServerEvent]], Any]
    ) -> Any:
        if self._one_at_a_time:
            return [padded_message(each, self._pad) for each in encode(events)]
        if not self._rest or events is not self._idle:
            self._rest += cast("bytes", encode(events))
        size = self._pad
        if self._hurries:
            size = math.ceil(len(self._rest) / size) * size
        piece, self._rest = self._rest[:size], self._rest[size:]
        self.closed = self._sender.closed and not self._rest
        return with_comment(piece, size)

    def _set_tick(self) -> Timer:
        ticks = math.floor(self._clock.now() / self._tick_s + _GRID_TOLERANCE) + 1
        return self._clock.call_at(ticks * self._tick_s, self._tick)

    def _tick(self) -> None:
        self._line.wake(self)
        self._ticking = self._set_tick()
