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
    from collections.abc import Callable, Collection, Sequence

    from protocol.events import OffsetUnit
    from protocol.ledger import Ledger, PartLedger
    from protocol.policy import Policy
    from protocol.stats import AttachmentStats

T = TypeVar("T")

NO_ACCOUNT: tuple[int, int] = (0, 0)
"""Of a reader whose account does not matter to the policy."""

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
    cause: str | None = None
    """Why."""
    tail: int = 0
    """Units on show and not committed, once text was shown; 0: none was."""
    encoded: Any = None
    """What a transport has made of the events."""


class Edition:
    """Works out steps, one after the other: each from a position, which the reader keeps.

    It remembers the last step, as long as the ledger stays as it is. Readers who keep up stand at
    the same position, with the same account of what was committed and taken back where the policy
    goes by that (a budget), so that is enough; one who lags behind has a step of its own and joins
    the others with it.
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
        degraded: Sequence[str] = (),
        draft_model: str | None = None,
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
        self.degraded = list(degraded) or None
        self.draft_model = draft_model
        self.tag = stream if multiplexed else None
        """How events name their stream."""
        self._length = units.length_in(unit)
        self._heeds_told = policy.heeds_told
        self._logprobs = "logprobs" in include
        self._tokens = self._logprobs or "tokens" in include
        self._confidence = "confidence" in include
        self._timing = "timing" in include
        self.is_shareable = not self._timing
        """Whether readers who were told the same are owed the same."""
        self._last: Step | None = None
        self._last_from: Position = Position()
        self._last_account: tuple[int, int] = NO_ACCOUNT
        self._last_version = -1

    def step(self, position: Position, stats: AttachmentStats, now: float) -> Step:
        """From `position` in the stream's last part to what the policy allows; at the end of the
        stream all of it. Raises PolicyError.
        """
        if not self.is_shareable:
            return self._next(position, stats, now)
        last, version = self._last, self.ledger.version
        account = NO_ACCOUNT
        if self._heeds_told:
            account = (stats.committed_units, stats.erased_units)
        if (
            last is not None
            and version == self._last_version
            and position == self._last_from
            and account == self._last_account
            and (last.wake_at is None or now < last.wake_at)
        ):
            return last
        last = self._last = self._next(position, stats, now)
        self._last_from, self._last_account, self._last_version = position, account, version
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
        retraction = None
        if position.tail:
            # Before the policy is asked: what the ledger has taken back it cannot save.
            position, retraction = self._compare(part, position)
        told = _told(position, stats, retraction) if self._heeds_told else None
        allowed = self.policy.view(part, now, told)
        _require_view_within_ledger(part, allowed)
        if ending is None:
            return self._deliver(part, position, allowed, retraction, now)
        return self._deliver_cut_short(part, position, allowed, retraction, now)

    def _deliver_cut_short(
        self,
        part: PartLedger,
        position: Position,
        allowed: View,
        retraction: Retraction | None,
        now: float,
    ) -> Step:
        """What the policy allows, and apart from it the rest."""
        chunks = Step([], position)
        if allowed.committed > position.at:
            allowed = View(allowed.committed, allowed.committed)
            chunks = self._deliver(part, position, allowed, retraction, now)
            retraction = None
        rest = self._deliver(part, chunks.position, _whole(part), retraction, now, cut_short=True)
        return Step(
            chunks.events + rest.events,
            rest.position,
            erased=chunks.erased + rest.erased,
            cause=chunks.cause or rest.cause,
        )

    def _compare(self, part: PartLedger, position: Position) -> tuple[Position, Retraction | None]:
        """Cut what no longer stands off the tail, and move what is committed now out of it."""
        told = position.tail
        if not told:
            return position, None
        sure = position.sure
        standing = common_prefix_length(told, part.text(sure, sure + len(told)))
        settled = min(standing, part.committed_length - sure)
        sure_units = position.sure_units + self._length(told[:settled])
        tail = told[settled:standing]
        position = Position(
            position.part, position.at, position.at_units, sure + settled, sure_units, tail
        )
        if standing == len(told):
            return position, None
        assert part.cause is not None, "the ledger explains every rewrite"
        return position, Retraction(
            at=sure_units + self._length(tail),
            n=self._length(told[standing:]),
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
        events: list[ServerEvent] = []
        at, at_units = position.at, position.at_units
        sure, sure_units, tail = position.sure, position.sure_units, position.tail
        committed, shown = allowed.committed, allowed.shown
        if committed > at:
            text = part.committed_text(at, committed)
            tokens = self._tokens_between(part, at, committed) if self._tokens else None
            events.append(
                Commit(
                    stream=self.tag,
                    t=self.time(now) if self._timing else None,
                    at=at_units,
                    text=text,
                    retract=retraction,
                    cut_short=cut_short,
                    tokens=tokens,
                )
            )
            at, at_units = committed, at_units + self._length(text)
            if at > sure:
                # Beyond all that was shown: the tail is empty, or `_compare` would have settled
                # more.
                sure, sure_units = at, at_units
        elif retraction is not None:
            events.append(self._retract(retraction, now))
        longest = 0
        end = sure + len(tail)
        if shown > end:
            text = part.text(end, shown)
            end_units = sure_units + self._length(tail)
            events.append(self._tentative(part, end, end_units, text, (at_units, sure_units), now))
            tail += text
            longest = end_units + self._length(text) - at_units
        if events:
            position = Position(position.part, at, at_units, sure, sure_units, tail)
        step = Step(events, position, allowed.wake_at, tail=longest)
        if retraction is not None:
            step.erased, step.cause = retraction.n, retraction.cause
        return step

    def _retract(self, retraction: Retraction, now: float) -> Retract:
        return Retract(
            stream=self.tag,
            t=self.time(now),
            at=retraction.at,
            n=retraction.n,
            cause=retraction.cause,
        )

    def _tentative(
        self,
        part: PartLedger,
        start: int,
        start_units: int,
        text: str,
        told_units: tuple[int, int],
        now: float,
    ) -> Tentative:
        """Appends `text`, which begins at `start`, to the reader's tail. `told_units`: how far the
        reader's text is committed, and sure.
        """
        stop = start + len(text)
        at_units, verified = told_units
        if part.committed_length > start:
            verified = start_units + self._length(text[: part.committed_length - start])
        tokens = None
        if self._tokens:
            tokens = self._tokens_between(part, start, stop, confidence=self._confidence)
        return Tentative(
            stream=self.tag,
            t=self.time(now) if self._timing else None,
            at=start_units,
            text=text,
            verified=verified if verified > at_units else None,
            confidence=part.tail_confidence(start, stop) if self._confidence else None,
            tokens=tokens,
        )

    def _tokens_between(
        self, part: PartLedger, start: int, stop: int, *, confidence: bool = False
    ) -> list[Token] | None:
        """Tokens whose last code point lies in the text of one event; None where there are none."""
        tokens = [
            Token(
                token.id,
                self._length(part.text(end - token.n, end)),
                token.logprob if self._logprobs else None,
                token.confidence if confidence else None,
                token.top if self._logprobs else None,
            )
            for token, end in part.tokens(start, stop)
        ]
        return tokens or None


def _told(position: Position, stats: AttachmentStats, retraction: Retraction | None) -> Told:
    return Told(
        position.at,
        position.sure + len(position.tail),
        stats.committed_units,
        stats.erased_units + (0 if retraction is None else retraction.n),
    )


def _require_view_within_ledger(part: PartLedger, view: View) -> None:
    committed = part.committed_length
    if view.committed > committed or view.shown > committed + len(part.tail):
        raise LocalProtocolError(f"{view} exceeds {committed} committed of {part.total_length}")


def _whole(part: PartLedger) -> View:
    return View(part.committed_length, part.committed_length)
