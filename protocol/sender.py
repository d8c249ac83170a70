"""The sending side of one attachment, sans-I/O (SPEC section 5).

It remembers only what it has told its reader: a watermark and a tail. Each call of `advance` turns
the difference between that and what the policy allows now into events, so a slow reader coalesces
by itself and no queue of events exists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol import units
from protocol.cursor import Cursor, Mark
from protocol.errors import ErrorCode, LocalProtocolError, PolicyError
from protocol.events import (
    PROTOCOL_VERSION,
    Commit,
    Error,
    Finish,
    FinishReason,
    Heartbeat,
    IncludeItem,
    OffsetUnit,
    Open,
    Part,
    Retract,
    Retraction,
    ServerEvent,
    Tentative,
    Token,
)
from protocol.ledger import Completed, Failed, Ledger, PartLedger
from protocol.policy import Told, View
from protocol.resume import resumed_at
from protocol.stats import AttachmentStats
from protocol.text import common_prefix_length
from protocol.transitions import State, follow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from protocol.policy import Policy
    from protocol.stats import Tally

_WHOLE_ENDINGS = (FinishReason.STOP, FinishReason.TOOL_CALLS)
"""Reasons after which the text ends where its author ended it."""


class Sender:
    """`open` once, then `advance` whenever ledger, clock or reader moved.

    Positions are code points; `…_units` is the same position in the reader's unit, counted along.
    What was told falls in three: committed up to `_at`; shown, and committed in the ledger by now,
    hence unable to change, up to `_sure`; then `_tail`, which is compared each time. So no event
    costs more than its own text and the tail that can still change.
    """

    def __init__(
        self,
        ledger: Ledger,
        policy: Policy,
        *,
        stream: str,
        epoch: int,
        model: str,
        unit: OffsetUnit,
        started_at: float,
        seed: int | None = None,
        include: Sequence[IncludeItem] = (),
        ref: str | None = None,
        multiplexed: bool = False,
        tally: Tally | None = None,
        is_first: bool = True,
    ) -> None:
        """`started_at`: when the request came, on the clock whose `now` is given to `advance`.
        `tally`, `is_first`: see `AttachmentStats`.

        `multiplexed`: every event names its stream, not `open` alone (WebSocket).
        """
        self._ledger = ledger
        self._stream = stream
        self._epoch = epoch
        self._model = model
        self.policy = policy
        self.unit = unit
        self._seed = seed
        self._ref = ref
        self._tag = stream if multiplexed else None
        self._logprobs = "logprobs" in include
        self._tokens = self._logprobs or "tokens" in include
        self._confidence = "confidence" in include
        self._timing = "timing" in include
        self._started_at = started_at
        self._state = State.CONNECTING
        self._part = 0
        self._mark: Mark | None = None
        self._at = self._at_units = 0
        self._sure = self._sure_units = 0
        self._tail = ""
        self.stats = AttachmentStats(started_at, tally, is_first=is_first)
        self.wake_at: float | None = None
        """When the policy wants to be asked again, from its last view."""

    @property
    def closed(self) -> bool:
        """`finish` or `error` has been given out."""
        return self._state in (State.FINISHED, State.FAILED)

    @property
    def withholds(self) -> bool:
        """Whether the policy keeps back text of the last part that is committed in the ledger."""
        return self._at < self._ledger.current.committed_length

    @property
    def cursor(self) -> Cursor:
        """Where a reader who has received everything so far would resume."""
        return Cursor(self._epoch, self._part, self._at_units, self._mark)

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
        part = self._ledger.parts[self._part]
        return Open(
            stream=self._stream,
            v=PROTOCOL_VERSION,
            epoch=self._epoch,
            model=self._model,
            policy=self.policy.described,
            offsets=self.unit,
            part=self._part,
            at=self._at_units,
            kind=part.kind,
            name=part.name,
            seed=self._seed,
            ref=self._ref,
        )

    def advance(self, now: float) -> list[ServerEvent]:
        """Everything owed to the reader at `now`, in order; empty when there is nothing to say.

        A complete part and an ended stream are delivered whole, whatever the policy. A policy that
        fails ends the attachment.
        """
        if self._state is not State.OPEN:
            self._require_opened()
            return []
        events: list[ServerEvent] = []
        ledger = self._ledger
        while self._part < ledger.current.index:
            part = ledger.parts[self._part]
            self._deliver(part, _whole(part), self._taken_back(part), now, events)
            events.append(self._next_part(now))
        try:
            self._advance_last_part(now, events)
        except PolicyError as error:
            events.append(self.fail(ErrorCode.POLICY_FAILED, str(error), retryable=False))
            return events
        if ledger.ending is not None:
            events.append(self._end(ledger.ending, now))
        return events

    def _advance_last_part(self, now: float, events: list[ServerEvent]) -> None:
        """What the policy allows of it; at the end of the stream all of it."""
        part, ending = self._ledger.current, self._ledger.ending
        # Before the policy is asked: what the ledger has taken back it cannot save.
        retraction = self._taken_back(part)
        if isinstance(ending, Completed) and ending.reason in _WHOLE_ENDINGS:
            self.wake_at = None
            self._deliver(part, _whole(part), retraction, now, events)
            return
        allowed = self.policy.view(part, now, self._told())
        self._require_view_within_ledger(part, allowed)
        if ending is None:
            self.wake_at = allowed.wake_at
            self._deliver(part, allowed, retraction, now, events)
            return
        self.wake_at = None
        if allowed.committed > self._at:
            chunks = View(allowed.committed, allowed.committed)
            self._deliver(part, chunks, retraction, now, events)
            retraction = None
        self._deliver(part, _whole(part), retraction, now, events, cut_short=True)

    def _taken_back(self, part: PartLedger) -> Retraction | None:
        """What of the shown tail the ledger holds no longer; it is no longer in the tail then."""
        return self._compare(part) if self._tail else None

    def heartbeat(self) -> Heartbeat:
        return Heartbeat(stream=self._tag)

    def fail(self, code: str, message: str, retryable: bool) -> Error:
        """End this attachment (not the stream) with an error; nothing more is delivered."""
        self._state = self._after(Error)
        return Error(
            stream=self._tag, code=code, message=message, retryable=retryable, at=self._at_units
        )

    def _after(self, event: type[ServerEvent]) -> State:
        """The state after an event of our own."""
        state = follow(self._state, event)
        if state is None:
            raise LocalProtocolError(f"{event.__name__} in state {self._state.name}")
        return state

    def _require_opened(self) -> None:
        if self._state is State.CONNECTING:
            raise LocalProtocolError("advance before open")

    def _require_view_within_ledger(self, part: PartLedger, view: View) -> None:
        if view.committed > part.committed_length or view.shown > part.total_length:
            raise LocalProtocolError(
                f"{view} exceeds {part.committed_length} committed of {part.total_length}"
            )

    def _resume(self, cursor: Cursor) -> None:
        """Begin at `cursor`."""
        self._at = self._sure = resumed_at(cursor, self._ledger, self._epoch, self.unit)
        self._part = cursor.part
        self._mark = cursor.mark
        self._at_units = self._sure_units = cursor.offset
        earlier = self._ledger.parts[: cursor.part]
        self.stats.final_units = cursor.offset + sum(
            units.length(part.committed_text(), self.unit) for part in earlier
        )

    def _told(self) -> Told:
        return Told(
            self._at,
            self._sure + len(self._tail),
            self.stats.committed_units,
            self.stats.erased_units,
        )

    def _deliver(
        self,
        part: PartLedger,
        allowed: View,
        retraction: Retraction | None,
        now: float,
        events: list[ServerEvent],
        *,
        cut_short: bool = False,
    ) -> None:
        """Bring the reader from what it was told to what is allowed, never backwards."""
        if allowed.committed > self._at:
            events.append(self._commit(part, allowed.committed, retraction, now, cut_short))
        elif retraction is not None:
            events.append(
                Retract(
                    stream=self._tag,
                    t=self._time(now),
                    at=retraction.at,
                    n=retraction.n,
                    cause=retraction.cause,
                )
            )
        if allowed.shown > self._sure + len(self._tail):
            events.append(self._show(part, allowed.shown, now))

    def _compare(self, part: PartLedger) -> Retraction | None:
        """Cut what no longer stands off the tail, and move what is committed now out of it."""
        told = self._tail
        standing = common_prefix_length(told, part.text(self._sure, self._sure + len(told)))
        settled = min(standing, part.committed_length - self._sure)
        self._tail = told[settled:standing]
        self._sure += settled
        self._sure_units += units.length(told[:settled], self.unit)
        if standing == len(told):
            return None
        n = units.length(told[standing:], self.unit)
        assert part.cause is not None, "the ledger explains every rewrite"
        self.stats.erased(n, part.cause)
        return Retraction(
            at=self._sure_units + units.length(self._tail, self.unit), n=n, cause=part.cause
        )

    def _commit(
        self,
        part: PartLedger,
        committed: int,
        retraction: Retraction | None,
        now: float,
        cut_short: bool,
    ) -> Commit:
        """Commit up to `committed`."""
        start, start_units = self._at, self._at_units
        text = part.committed_text(start, committed)
        n = units.length(text, self.unit)
        self.stats.committed(n, now)
        self._at = committed
        self._at_units += n
        if committed > self._sure:
            # Beyond all that was shown: the tail is empty, or `_compare` would have settled more.
            self._sure, self._sure_units = committed, self._at_units
        return Commit(
            stream=self._tag,
            t=self._time(now),
            at=start_units,
            text=text,
            retract=retraction,
            cut_short=cut_short,
            tokens=self._tokens_between(part, start, committed, confidence=False),
        )

    def _show(self, part: PartLedger, shown: int, now: float) -> Tentative:
        """Append text up to `shown` to the reader's tail."""
        start = self._sure + len(self._tail)
        start_units = self._sure_units + units.length(self._tail, self.unit)
        text = part.text(start, shown)
        self._tail += text
        tail_end = start_units + units.length(text, self.unit)
        self.stats.shown(tail_end - self._at_units, now)
        return Tentative(
            stream=self._tag,
            t=self._time(now),
            at=start_units,
            text=text,
            verified=self._verified_units(part, start, start_units, text),
            confidence=part.tail_confidence(start, shown) if self._confidence else None,
            tokens=self._tokens_between(part, start, shown, confidence=self._confidence),
        )

    def _verified_units(
        self, part: PartLedger, start: int, start_units: int, text: str
    ) -> int | None:
        """Up to where the tail is verified once `text` is appended to it; None where nothing of it
        is, so that it begins at the watermark.
        """
        end = self._sure_units
        if part.committed_length > start:
            end = start_units + units.length(text[: part.committed_length - start], self.unit)
        return end if end > self._at_units else None

    def _next_part(self, now: float) -> Part:
        self._part += 1
        self._at = self._at_units = 0
        self._sure = self._sure_units = 0
        part = self._ledger.parts[self._part]
        return Part(
            stream=self._tag,
            t=self._time(now),
            part=part.index,
            kind=part.kind,
            name=part.name,
        )

    def _end(self, ending: Completed | Failed, now: float) -> Finish | Error:
        if isinstance(ending, Completed):
            self._state = self._after(Finish)
            self._mark = Mark.FINISH
            return Finish(
                stream=self._tag,
                t=self._time(now),
                at=self._at_units,
                reason=ending.reason,
                usage=ending.usage,
                digest=self._ledger.digest(),
                stats=self.stats.report(ending.usage, ending.steps),
            )
        self._state = self._after(Error)
        return Error(
            stream=self._tag,
            t=self._time(now),
            code=ending.code,
            message=ending.message,
            retryable=ending.retryable,
            ended=True,
            at=self._at_units,
        )

    def _tokens_between(
        self, part: PartLedger, start: int, stop: int, *, confidence: bool
    ) -> list[Token] | None:
        """Tokens whose last code point lies in the text of one event; None unless asked for, and
        where there are none.
        """
        if not self._tokens:
            return None
        tokens = [
            Token(
                token.id,
                units.length(part.text(end - token.n, end), self.unit),
                token.logprob if self._logprobs else None,
                token.confidence if confidence else None,
            )
            for token, end in part.tokens(start, stop)
        ]
        return tokens or None

    def _time(self, now: float) -> float | None:
        """Milliseconds since the request; None unless asked for."""
        return round((now - self._started_at) * 1000, 3) if self._timing else None


def _whole(part: PartLedger) -> View:
    return View(part.committed_length, part.committed_length)
