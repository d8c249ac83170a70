"""The sending side of one attachment, sans-I/O (SPEC section 5).

It remembers only what it has told its reader: a watermark and a tail. Each call of `advance` turns
the difference between that and what the policy allows now into events, so a slow reader coalesces
by itself and no queue of events exists. What the difference is, its edition works out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol import units
from protocol.cursor import Cursor, Mark
from protocol.edition import Edition, Position
from protocol.errors import ErrorCode, LocalProtocolError, PolicyError
from protocol.events import (
    PROTOCOL_VERSION,
    Error,
    Finish,
    Heartbeat,
    OffsetUnit,
    Open,
    Part,
    ServerEvent,
)
from protocol.ledger import Completed, Failed
from protocol.resume import resumed_at
from protocol.stats import AttachmentStats
from protocol.transitions import State, follow

if TYPE_CHECKING:
    from protocol.edition import Step
    from protocol.policy import Policy
    from protocol.stats import Tally


class Sender:
    """`open` once, then `advance` whenever ledger, clock or reader moved."""

    def __init__(
        self,
        edition: Edition,
        *,
        ref: str | None = None,
        tally: Tally | None = None,
        is_first: bool = True,
    ) -> None:
        """`tally`, `is_first`: see `AttachmentStats`."""
        self.edition = edition
        self.closed = False
        """`finish` or `error` has been given out."""
        self.wake_at: float | None = None
        """When the policy wants to be asked again, from its last view."""
        self._ref = ref
        self._state = State.CONNECTING
        self._mark: Mark | None = None
        self._position = Position()
        self.stats = AttachmentStats(edition.started_at, tally, is_first=is_first)

    @property
    def withholds(self) -> bool:
        """Whether the policy keeps back text of the last part that is committed in the ledger."""
        return self._position.at < self.edition.ledger.current.committed_length

    @property
    def policy(self) -> Policy:
        return self.edition.policy

    @property
    def unit(self) -> OffsetUnit:
        """What its offsets are counted in."""
        return self.edition.unit

    @property
    def cursor(self) -> Cursor:
        """Where a reader who has received everything so far would resume."""
        position = self._position
        return Cursor(self.edition.epoch, position.part, position.at_units, self._mark)

    @property
    def finish_was_told(self) -> bool:
        """Whether the reader has had `finish`, here or before it resumed."""
        return self._mark is Mark.FINISH

    def open(self, cursor: Cursor | None = None) -> Open:
        """First event of the attachment, which begins at `cursor` or at the stream's beginning.

        Raises RequestError: UNKNOWN_EPOCH, CURSOR_AHEAD, BAD_CURSOR for an offset inside a code
        point, or for a cursor marked `error` what the reader was told; nothing has happened then.
        """
        state = self._after(Open)
        if cursor is not None:
            self._resume(cursor)
        self._state = state
        edition, position = self.edition, self._position
        part = edition.ledger.parts[position.part]
        return Open(
            stream=edition.stream,
            v=PROTOCOL_VERSION,
            epoch=edition.epoch,
            model=edition.model,
            policy=edition.policy.described,
            offsets=edition.unit,
            part=position.part,
            at=position.at_units,
            kind=part.kind,
            name=part.name,
            seed=edition.seed,
            ref=self._ref,
            degraded=edition.degraded,
            draft_model=edition.draft_model,
        )

    def advance(self, now: float) -> list[ServerEvent]:
        """Everything owed to the reader at `now`, in order; empty when there is nothing to say.
        It may be the list of a step that other readers are given too: not to be changed.

        A complete part and an ended stream are delivered whole, whatever the policy. A policy that
        fails ends the attachment.
        """
        if self._state is not State.OPEN:
            self._require_opened()
            return []
        ledger = self.edition.ledger
        earlier: list[ServerEvent] = []
        if self._position.part < ledger.current.index:
            earlier = self._finish_earlier_parts(now)
        try:
            step = self.edition.step(self._position, self.stats, now)
        except PolicyError as error:
            failure = self.fail(ErrorCode.POLICY_FAILED, str(error), retryable=False)
            return [*earlier, failure]
        self._take(step, now)
        if ledger.ending is not None:
            return [*earlier, *step.events, self._end(ledger.ending, now)]
        return [*earlier, *step.events] if earlier else step.events

    def heartbeat(self) -> Heartbeat:
        return Heartbeat(stream=self.edition.tag)

    def fail(self, code: str, message: str, retryable: bool) -> Error:
        """End this attachment (not the stream) with an error; nothing more is delivered."""
        self._close(Error)
        return Error(
            stream=self.edition.tag,
            code=code,
            message=message,
            retryable=retryable,
            at=self._position.at_units,
        )

    def _after(self, event: type[ServerEvent]) -> State:
        """The state after an event of our own."""
        state = follow(self._state, event)
        if state is None:
            raise LocalProtocolError(f"{event.__name__} in state {self._state.name}")
        return state

    def _close(self, event: type[Finish | Error]) -> None:
        self._state = self._after(event)
        self.closed = True
        self.wake_at = None

    def _require_opened(self) -> None:
        if self._state is State.CONNECTING:
            raise LocalProtocolError("advance before open")

    def _resume(self, cursor: Cursor) -> None:
        """Begin at `cursor`."""
        edition = self.edition
        parts = edition.ledger.parts
        at = resumed_at(cursor, edition.ledger, edition.epoch, edition.unit)
        self._position = Position(cursor.part, at, cursor.offset, at, cursor.offset)
        self._mark = cursor.mark
        self.stats.final_units = cursor.offset + sum(
            units.length(part.committed_text(), edition.unit) for part in parts[: cursor.part]
        )

    def _take(self, step: Step, now: float) -> None:
        """The reader is told what `step` says."""
        self.wake_at = step.wake_at
        before, position = self._position, step.position
        if position is before:
            return
        self._position = position
        stats = self.stats
        if position.at_units > before.at_units:
            stats.committed(position.at_units - before.at_units, now)
        if step.erased:
            assert step.cause is not None
            stats.erased(step.erased, step.cause)
        if step.tail:
            stats.shown(step.tail, now)

    def _finish_earlier_parts(self, now: float) -> list[ServerEvent]:
        """Up to the beginning of the stream's last part."""
        edition = self.edition
        parts = edition.ledger.parts
        events: list[ServerEvent] = []
        while self._position.part < len(parts) - 1:
            step = edition.rest(parts[self._position.part], self._position, now)
            self._take(step, now)
            part = parts[self._position.part + 1]
            self._position = Position(part.index)
            begins = Part(
                stream=edition.tag,
                t=edition.time(now),
                part=part.index,
                kind=part.kind,
                name=part.name,
            )
            events += [*step.events, begins]
        return events

    def _end(self, ending: Completed | Failed, now: float) -> Finish | Error:
        edition, at = self.edition, self._position.at_units
        if isinstance(ending, Completed):
            self._close(Finish)
            self._mark = Mark.FINISH
            return Finish(
                stream=edition.tag,
                t=edition.time(now),
                at=at,
                reason=ending.reason,
                usage=ending.usage,
                digest=edition.ledger.digest(),
                stats=self.stats.report(ending.usage, ending.steps),
            )
        self._close(Error)
        return Error(
            stream=edition.tag,
            t=edition.time(now),
            code=ending.code,
            message=ending.message,
            retryable=ending.retryable,
            ended=True,
            at=at,
        )
