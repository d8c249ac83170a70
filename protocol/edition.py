"""What attachments have in common that ask for the same of one stream: the same policy, the same
unit, the same extras.

What is owed to a reader follows from the ledger and from what the reader was told. So readers of
one edition who were told the same are owed the same, and what the first of them is sent serves them
all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from protocol import units
from protocol.errors import LocalProtocolError
from protocol.events import (
    Commit,
    FinishReason,
    IncludeItem,
    Retract,
    Retraction,
    ServerEvent,
    Tentative,
    Token,
)
from protocol.ledger import Completed
from protocol.policy import Told, View
from protocol.text import common_prefix_length

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from protocol.events import OffsetUnit
    from protocol.ledger import Ledger, PartLedger
    from protocol.policy import Policy
    from protocol.stats import AttachmentStats

T = TypeVar("T")

_WHOLE_ENDINGS = (FinishReason.STOP, FinishReason.TOOL_CALLS)
"""Reasons after which the text ends where its author ended it."""


class Position(msgspec.Struct, frozen=True, gc=False):
    """What a reader was told of a part. Positions are code points; `…_units` is the same position
    in the reader's unit, counted along.

    It falls in three: committed up to `at`; shown, and committed in the ledger by now, hence unable
    to change, up to `sure`; then `tail`, which is compared each time. So no event costs more than
    its own text and the tail that can still change.
    """

    part: int = 0
    at: int = 0
    at_units: int = 0
    sure: int = 0
    sure_units: int = 0
    tail: str = ""


class Step(msgspec.Struct):
    """What takes a reader, within one part, from one position to the next."""

    events: list[ServerEvent]
    position: Position
    """After the events."""
    wake_at: float | None = None
    """When there may be more to say though the ledger has not changed (seconds)."""
    erased: int = 0
    """Units taken back."""
    tail: int = 0
    """Units on show and not committed, once text was shown; 0: none was."""
    encoded: Any = None
    """What a transport has made of the events."""


class Edition:
    """Works out steps, one after the other: each from a position, which the reader keeps.

    It remembers the last step, as long as the ledger stays as it is. Readers who keep up stand at
    the same position, so that is enough; one who lags behind has a step of its own and joins the
    others with it.
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
        include: Collection[IncludeItem] = (),
        multiplexed: bool = False,
    ) -> None:
        """`started_at`: when the request came, on the clock whose `now` is given to `step`.

        `multiplexed`: every event names its stream, not `open` alone (WebSocket).
        """
        self.ledger = ledger
        self.policy = policy
        self.stream = stream
        self.epoch = epoch
        self.model = model
        self.unit = unit
        self.started_at = started_at
        self.seed = seed
        self.tag = stream if multiplexed else None
        """How events name their stream."""
        self._logprobs = "logprobs" in include
        self._tokens = self._logprobs or "tokens" in include
        self._confidence = "confidence" in include
        self._timing = "timing" in include
        self.is_shareable = policy.is_shareable and not self._timing
        """Whether readers who were told the same are owed the same."""
        self._last: Step | None = None
        self._last_from = Position()
        self._last_version = -1

    def step(self, position: Position, stats: AttachmentStats, now: float) -> Step:
        """From `position` in the stream's last part to what the policy allows; at the end of the
        stream all of it. Raises PolicyError.
        """
        if not self.is_shareable:
            return self._next(position, stats, now)
        last, version = self._last, self.ledger.version
        if (
            last is not None
            and version == self._last_version
            and position == self._last_from
            and (last.wake_at is None or now < last.wake_at)
        ):
            return last
        last = self._last = self._next(position, stats, now)
        self._last_from, self._last_version = position, version
        return last

    def encoded(self, events: list[ServerEvent], encode: Callable[[list[ServerEvent]], T]) -> T:
        """`encode(events)`; for the events of a step that several readers are sent, made once.

        All readers of a shareable edition must encode alike.
        """
        last = self._last
        if last is None or events is not last.events:
            return encode(events)
        if last.encoded is None:
            last.encoded = encode(events)
        return last.encoded

    def rest(self, part: PartLedger, position: Position, now: float) -> Step:
        """To the end of a part that is complete."""
        position, retraction = self._compare(part, position)
        return self._deliver(part, position, _whole(part), retraction, now)

    def time(self, now: float) -> float | None:
        """Milliseconds since the request; None unless asked for."""
        return round((now - self.started_at) * 1000, 3) if self._timing else None

    def _next(self, position: Position, stats: AttachmentStats, now: float) -> Step:
        part, ending = self.ledger.current, self.ledger.ending
        if isinstance(ending, Completed) and ending.reason in _WHOLE_ENDINGS:
            return self.rest(part, position, now)
        # Before the policy is asked: what the ledger has taken back it cannot save.
        position, retraction = self._compare(part, position)
        told = Told(
            position.at,
            position.sure + len(position.tail),
            stats.committed_units,
            stats.erased_units + (0 if retraction is None else retraction.n),
        )
        allowed = self.policy.view(part, now, told)
        self._require_view_within_ledger(part, allowed)
        if ending is None:
            return self._deliver(part, position, allowed, retraction, now)
        chunks = Step([], position)
        if allowed.committed > position.at:
            allowed = View(allowed.committed, allowed.committed)
            chunks = self._deliver(part, position, allowed, retraction, now)
            retraction = None
        rest = self._deliver(part, chunks.position, _whole(part), retraction, now, cut_short=True)
        return Step(chunks.events + rest.events, rest.position, erased=chunks.erased + rest.erased)

    def _require_view_within_ledger(self, part: PartLedger, view: View) -> None:
        if view.committed > part.committed_length or view.shown > part.total_length:
            raise LocalProtocolError(
                f"{view} exceeds {part.committed_length} committed of {part.total_length}"
            )

    def _compare(self, part: PartLedger, position: Position) -> tuple[Position, Retraction | None]:
        """Cut what no longer stands off the tail, and move what is committed now out of it."""
        told = position.tail
        if not told:
            return position, None
        sure = position.sure
        standing = common_prefix_length(told, part.text(sure, sure + len(told)))
        settled = min(standing, part.committed_length - sure)
        sure_units = position.sure_units + units.length(told[:settled], self.unit)
        tail = told[settled:standing]
        position = Position(
            position.part, position.at, position.at_units, sure + settled, sure_units, tail
        )
        if standing == len(told):
            return position, None
        assert part.cause is not None, "the ledger explains every rewrite"
        return position, Retraction(
            at=sure_units + units.length(tail, self.unit),
            n=units.length(told[standing:], self.unit),
            cause=part.cause,
        )

    def _deliver(
        self,
        part: PartLedger,
        position: Position,
        allowed: View,
        retraction: Retraction | None,
        now: float,
        *,
        cut_short: bool = False,
    ) -> Step:
        """From what the reader was told to what is allowed, never backwards."""
        step = Step([], position, allowed.wake_at, 0 if retraction is None else retraction.n)
        if allowed.committed > position.at:
            self._commit(part, step, allowed.committed, retraction, now, cut_short)
        elif retraction is not None:
            step.events.append(
                Retract(
                    stream=self.tag,
                    t=self.time(now),
                    at=retraction.at,
                    n=retraction.n,
                    cause=retraction.cause,
                )
            )
        position = step.position
        if allowed.shown > position.sure + len(position.tail):
            self._show(part, step, allowed.shown, now)
        return step

    def _commit(
        self,
        part: PartLedger,
        step: Step,
        committed: int,
        retraction: Retraction | None,
        now: float,
        cut_short: bool,
    ) -> None:
        """Commit up to `committed`."""
        before = step.position
        at, at_units = before.at, before.at_units
        text = part.committed_text(at, committed)
        end_units = at_units + units.length(text, self.unit)
        if committed > before.sure:
            # Beyond all that was shown: the tail is empty, or `_compare` would have settled more.
            step.position = Position(before.part, committed, end_units, committed, end_units)
        else:
            step.position = Position(
                before.part, committed, end_units, before.sure, before.sure_units, before.tail
            )
        step.events.append(
            Commit(
                stream=self.tag,
                t=self.time(now),
                at=at_units,
                text=text,
                retract=retraction,
                cut_short=cut_short,
                tokens=self._tokens_between(part, at, committed, confidence=False),
            )
        )

    def _show(self, part: PartLedger, step: Step, shown: int, now: float) -> None:
        """Append text up to `shown` to the reader's tail."""
        before = step.position
        start = before.sure + len(before.tail)
        start_units = before.sure_units + units.length(before.tail, self.unit)
        text = part.text(start, shown)
        step.position = Position(
            before.part,
            before.at,
            before.at_units,
            before.sure,
            before.sure_units,
            before.tail + text,
        )
        step.tail = start_units + units.length(text, self.unit) - before.at_units
        step.events.append(
            Tentative(
                stream=self.tag,
                t=self.time(now),
                at=start_units,
                text=text,
                verified=self._verified_units(part, before, start, start_units, text),
                confidence=part.tail_confidence(start, shown) if self._confidence else None,
                tokens=self._tokens_between(part, start, shown, confidence=self._confidence),
            )
        )

    def _verified_units(
        self, part: PartLedger, before: Position, start: int, start_units: int, text: str
    ) -> int | None:
        """Up to where the tail is verified once `text` is appended to it; None where nothing of it
        is, so that it begins at the watermark.
        """
        end = before.sure_units
        if part.committed_length > start:
            end = start_units + units.length(text[: part.committed_length - start], self.unit)
        return end if end > before.at_units else None

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


def _whole(part: PartLedger) -> View:
    return View(part.committed_length, part.committed_length)
