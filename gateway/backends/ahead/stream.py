"""One upstream stream with a draft ahead of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol, assert_never

import msgspec

from gateway.backends.ahead.draft import Draft, Piece
from gateway.backends.base import (
    BackendEvent,
    Drafted,
    Failed,
    Finished,
    PartBegins,
    Sink,
    TokenCounts,
    Verified,
)
from protocol.events import Cause

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.backends.ahead.calibration import Calibration
    from gateway.backends.ahead.pace import Worth
    from protocol.requests import GenerationRequest

HORIZON = 48
"""Most tokens ahead of the verified text."""
UNLIKELY = 0.25
"""A tail less likely to stay is not drafted on; ..."""
LIKELY = 0.45
"""... until so much of it is verified that it is this likely."""


class Runs(Protocol):
    """What a stream asks of the drafting engine: one run at a time."""

    def begin(self, stream: Along) -> None:
        """Draft on behind `stream.text()`, where there is room; otherwise nothing."""
        ...

    def cancel(self, stream: Along) -> None: ...


class Along:
    """Passes the upstream's events on at once, and puts drafted text behind them."""

    def __init__(
        self,
        request: GenerationRequest,
        sink: Sink,
        runs: Runs,
        calibration: Calibration,
        worth: Worth,
        now: Callable[[], float],
        *,
        wanted: bool,
        tenant: str,
    ) -> None:
        self.request = request
        self.tenant = tenant
        self.draft = Draft(calibration)
        self.running = False
        """Whether a run is under way. Set by `Runs`."""
        self._sink = sink
        self._runs = runs
        self._worth = worth
        self._now = now
        self._wanted = wanted
        self.possible = request.grammar is None and not request.tools
        """False once there is no sense in drafts for this stream."""
        self._admitted = False
        self._said: list[str] = []
        self._told = ""
        """The tail as the sink has it."""
        self._said_all = False
        """By its draft the text is at its end."""
        self._left = request.max_tokens
        """Tokens the upstream may still say, where it counts them along."""
        self._spoke_at = now()
        self.has_draft = asyncio.Event()
        """There is something to show before the upstream has admitted the request."""
        self.cancelled = False
        self.over = False

    @property
    def drafting(self) -> bool:
        """Whether something may come of it before the upstream speaks."""
        return self.running or bool(self.draft.length)

    def text(self) -> str:
        """Verified and drafted: what a run goes on behind."""
        return "".join(self._said) + self.draft.tail

    def begin(self) -> None:
        if self._worth.before_first:
            self._go_on()

    def admitted(self) -> None:
        """Its sink may be told of drafts from here on."""
        self._admitted = True
        self._show()

    def want_drafts(self, wanted: bool) -> None:
        if wanted == self._wanted or self.over:
            return
        self._wanted = wanted
        if wanted:
            self._go_on()
        else:
            self._forget_draft()

    def give_up(self) -> None:
        """No drafts for this stream: the engine cannot go on from its text."""
        self.possible = False
        self._forget_draft()

    def close(self) -> None:
        """Nothing more will come of it."""
        self.over = True
        if self.running:
            self._runs.cancel(self)

    def heard(self, event: BackendEvent) -> None:
        """The upstream's sink."""
        match event:
            case Verified():
                self._verified(event)
            case Drafted():
                self._leave_drafts_to_upstream()
                cause = event.cause or (Cause.DRAFT_REJECTED if self._told else None)
                self._told = ""
                self._sink(msgspec.structs.replace(event, cause=cause))
            case PartBegins():
                self.give_up()
                self._sink(event)
            case Finished():
                self.draft.end()
                self.close()
                self._sink(Finished(event.reason, self._counted(event.counts)))
            case Failed():
                self.close()
                self._sink(event)
            case _:
                assert_never(event)

    def drafted(self, pieces: list[Piece]) -> None:
        """The run under way has come so far."""
        for piece in pieces:
            if not self.draft.add(piece):
                self._runs.cancel(self)
                self._go_on()
                return
        if self.draft.length >= self._horizon or self.draft.chance() < UNLIKELY:
            self._runs.cancel(self)
        self._show()

    def run_ended(self, *, said_all: bool) -> None:
        """`said_all`: the draft model has nothing to add."""
        self._said_all = said_all
        self._go_on()

    def _verified(self, event: Verified) -> None:
        text, first = event.text, not self._said
        if event.tail:
            self._leave_drafts_to_upstream()
        stands = self.draft.verify(text) if self.possible else True
        tail = self.draft.tail
        canonical = text + (tail or event.tail)
        cause = event.cause
        if not canonical.startswith(self._told):
            cause = cause or Cause.DRAFT_REJECTED
        self._told = tail
        self._sink(
            Verified(
                text,
                tail or event.tail,
                cause,
                event.tokens,
                None if event.counts is None else self._counted(event.counts),
            )
        )
        if event.counts is not None:
            self._left = self.request.max_tokens - event.counts.completion
        if text:
            self._said.append(text)
            self._observe_pace(len(text), first=first)
        if self.over or not (self.possible and self._wanted):
            return
        if tail:
            self._show()
        if not tail:  # it says more than the draft model had to say
            self._said_all = False
        if not stands and self.running:
            self._runs.cancel(self)
        if self._worth.along:
            self._go_on()
        elif self.running:
            self._runs.cancel(self)

    def _observe_pace(self, characters: int, *, first: bool) -> None:
        now = self._now()
        if first:
            self._worth.observe_first(now - self._spoke_at)
        else:
            self._worth.upstream.observe(characters, now - self._spoke_at)
        self._spoke_at = now

    def _go_on(self) -> None:
        if (
            self._wanted
            and self.possible
            and not (self.over or self.running or self._said_all)
            and self.draft.length < self._horizon
            and self.draft.chance() >= LIKELY
        ):
            self._runs.begin(self)

    def _show(self) -> None:
        """The tail with its chances as they are known now."""
        tail = self.draft.tail
        if tail and not self._admitted:
            self.has_draft.set()
        if self._admitted and self._wanted and not self.over and (tail or self._told):
            cause = None if tail.startswith(self._told) else Cause.DRAFT_REJECTED
            self._told = tail
            self._sink(Drafted(tail, self.draft.tokens(), cause))

    def _leave_drafts_to_upstream(self) -> None:
        """An upstream that drafts knows better than we what it will say."""
        self.possible = False
        self.draft.drop()
        if self.running:
            self._runs.cancel(self)

    def _forget_draft(self) -> None:
        if self.running:
            self._runs.cancel(self)
        self.draft.drop()
        if self._told:
            self._told = ""
            self._sink(Drafted("", cause=Cause.DRAFT_REJECTED))

    @property
    def _horizon(self) -> int:
        return min(HORIZON, self._left)

    def _counted(self, counts: TokenCounts) -> TokenCounts:
        """With the draft's tokens, which are the draft model's."""
        if not self.draft.drafted:
            return counts
        return msgspec.structs.replace(
            counts,
            drafted=counts.drafted + self.draft.drafted,
            accepted=counts.accepted + self.draft.accepted,
        )
