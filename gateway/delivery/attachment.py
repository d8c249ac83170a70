"""One reading of one stream over one connection: what it was told, what its policy allows, and when
to look again.

No queue stands between the ledger and the client. `collect` computes the events owed from the two
at the moment the client can take them, so whatever was drafted and taken back meanwhile never
existed for this attachment.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from protocol import units
from protocol.errors import ErrorCode, RequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.clock import Clock, Timer
    from gateway.config import DeliveryConfig
    from gateway.delivery.connection import Line
    from protocol.cursor import Cursor
    from protocol.events import OffsetUnit, ServerEvent
    from protocol.ledger import Ledger
    from protocol.policy import Policy
    from protocol.sender import Sender
    from protocol.stats import Tally


class Attachment:
    """Pulled by a transport: it wakes its connection when there may be something to `collect`.

    Bounded: it keeps no text but the tail it told its reader. While the connection is stuck in a
    write, committed text over `unsent_bytes` ends the attachment with `slow_reader`; a write stuck
    for `stall_s` cuts the connection.
    """

    def __init__(
        self,
        sender: Sender,
        ledger: Ledger,
        clock: Clock,
        connection: Line,
        *,
        delivery: DeliveryConfig,
        unsent_bytes: int,
        tally: Tally,
        on_leave: Callable[[Attachment], None],
    ) -> None:
        """`ledger`: the one that `sender` reads. `tally`: what this one is added to. `on_leave` is
        called once.
        """
        self.pad: int | None = None
        """Bytes that every write is filled up to; None: it is not shaped."""
        self.encoded = sender.edition.encoded
        """`encoded(events, encode)` is `encode(events)`, of what was collected last; made once for
        all attachments that were given the same events and whose transports encode alike.
        """
        self.ack: tuple[int, int] | None = None
        """(part, offset) the reader says it has shown, spoken or accepted, in its own unit."""
        self._sender = sender
        self._ledger = ledger
        self._clock = clock
        self._connection = connection
        self._on_leave = on_leave
        self._heartbeat_s = delivery.heartbeat_s
        self._stall_s = delivery.stall_s
        self._unsent_bytes = unsent_bytes
        self._taken_bytes = ledger.committed_bytes
        self._tally = tally
        self._owed_since: float | None = None
        """When the oldest text was verified that is not committed here; None: there is none."""
        self._quiet_since = clock.now()
        self.closed = False
        """Nothing more will come: after `finish` or `error`, or after `leave`."""
        self._timer: Timer | None = None
        self._timer_at = 0.0
        self._pending: list[ServerEvent] = []
        self._left = False
        self._gone = asyncio.Event()

    @property
    def policy(self) -> Policy:
        return self._sender.policy

    @property
    def unit(self) -> OffsetUnit:
        """What its offsets are counted in."""
        return self._sender.unit

    @property
    def waiting_bytes(self) -> int:
        """Committed text that has come since the reader took the last, as UTF-8."""
        return 0 if self.closed else self._ledger.committed_bytes - self._taken_bytes

    @property
    def cursor(self) -> Cursor:
        """Where a resume would go on, after the events collected last."""
        return self._sender.cursor

    @property
    def finish_was_told(self) -> bool:
        """Whether this reader has had `finish`, here or before it resumed."""
        return self._sender.finish_was_told

    def open(self, cursor: Cursor | None) -> None:
        """Raises RequestError when `cursor` does not fit the stream."""
        self._pending.append(self._sender.open(cursor))
        self._connection.wake(self)

    def notify(self, now: float) -> None:
        """The ledger changed, at `now`. Called for every event, so it must cost next to nothing."""
        self._tally.changes += 1
        if self._owed_since is None and self._ledger.committed_bytes > self._taken_bytes:
            self._owed_since = now
        connection = self._connection
        if connection.stuck_since is not None and self._is_too_slow():
            self.fail(
                ErrorCode.SLOW_READER,
                f"more than {self._unsent_bytes} bytes of committed text are waiting for this "
                "reader; go on from the last cursor",
                retryable=True,
            )
        connection.wake(self)

    def fail(self, code: ErrorCode, message: str, *, retryable: bool) -> None:
        """Ends this attachment; the stream goes on."""
        if not self._sender.closed:
            failures = self._tally.failures
            failures[code] = failures.get(code, 0) + 1
            self._pending.append(self._sender.fail(code, message, retryable))
            self._connection.wake(self)

    def collect(self) -> list[ServerEvent]:
        """All that is owed now, in order; a heartbeat after a long silence; else nothing.

        Other attachments may be given the same list: not to be changed.
        """
        if self._left:
            return []
        sender, now = self._sender, self._clock.now()
        events: list[ServerEvent] = []
        if not sender.closed:
            self._taken_bytes = self._ledger.committed_bytes
            events = sender.advance(now)
        if self._pending:
            events, self._pending = self._pending + events, []
        if events:
            self._tally.deliveries += 1
            if self._owed_since is not None and self._sender.stats.last_committed == now:
                self._tally.lags.add(now - self._owed_since)
                # Of what is still withheld it is not known since when: too late by little.
                self._owed_since = now if self._sender.withholds else None
            self._quiet_since = now
        elif not sender.closed and now >= self._quiet_since + self._heartbeat_s:
            self._quiet_since = now
            events = [sender.heartbeat()]
        self.closed = sender.closed
        if self._timer is None or sender.wake_at is not None or sender.closed:
            self._arm()  # else one stands that is early enough: heartbeats are only ever put off
        return events

    def acknowledge(self, part: int, at: int) -> None:
        """The reader has shown, spoken or accepted text up to `at` (in its unit) of `part`.

        Raises RequestError for text it was never sent.
        """
        if at > self._sent_of(part):
            raise RequestError(
                ErrorCode.INVALID_VALUE,
                f"an ack may not go beyond what was delivered: part {self.cursor.part}, offset "
                f"{self.cursor.offset}",
                "at",
            )
        self.ack = max(self.ack or (0, 0), (part, at))

    def leave(self) -> None:
        """The reader is gone. Idempotent; every attachment ends with it."""
        if not self._left:
            self._left = self.closed = True
            self._gone.set()
            self._disarm()
            self._on_leave(self)

    async def gone(self) -> None:
        """Returns when the reader has left."""
        await self._gone.wait()

    def cut(self) -> None:
        """Ends the connection it is on, whatever has not been sent."""
        self._connection.abort()

    def _sent_of(self, part: int) -> int:
        """How much of `part` the reader was sent, in its unit; -1 before the part began."""
        reached = self.cursor
        if part < reached.part:
            return units.length(self._ledger.parts[part].committed_text(), self.unit)
        return reached.offset if part == reached.part else -1

    def _is_too_slow(self) -> bool:
        return self._ledger.committed_bytes - self._taken_bytes > self._unsent_bytes

    def _arm(self) -> None:
        """One timer: for the next heartbeat, the policy's deadline, or a stall of this write.

        A timer that stands earlier than needed is left alone: it finds nothing and arms the next,
        which costs less than a new timer per event.
        """
        sender = self._sender
        due = self._quiet_since + self._heartbeat_s
        if sender.closed:
            due = self._clock.now() + self._stall_s
        elif sender.wake_at is not None:
            due = min(due, sender.wake_at)
        if self._timer is None or due < self._timer_at:
            self._set_timer(due)

    def _set_timer(self, due: float) -> None:
        self._disarm()
        self._timer_at = due
        self._timer = self._clock.call_at(due, self._ring)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        stuck_since = self._connection.stuck_since
        if stuck_since is None:
            self._connection.wake(self)
        elif self._clock.now() >= stuck_since + self._stall_s:
            self._connection.abort()
        else:
            self._set_timer(stuck_since + self._stall_s)
