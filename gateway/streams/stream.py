"""A stream: one generation, which lives on its own, whoever reads it or leaves."""

from __future__ import annotations

import logging
from functools import partial
from sys import getsizeof
from typing import TYPE_CHECKING, NamedTuple, assert_never
from weakref import WeakValueDictionary

import msgspec

from gateway import request_ids
from gateway.backends.base import Drafted, Failed, Finished, PartBegins, TokenCounts, Verified
from gateway.delivery import Attachment, ShapedAttachment
from gateway.policies import SpecPolicy
from protocol.edition import Edition
from protocol.errors import ErrorCode, LedgerError, RequestError
from protocol.events import Cause, FinishReason, OffsetUnit, Usage
from protocol.ledger import Completed, Ledger
from protocol.sender import Sender

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from gateway.access import Principal
    from gateway.backends.base import Backend, BackendEvent
    from gateway.clock import Clock, Timer
    from gateway.config import DeliveryConfig, LimitsConfig
    from gateway.delivery import Connection
    from protocol.cursor import Cursor
    from protocol.events import IncludeItem
    from protocol.requests import GenerationRequest, Message, PolicySpec
    from protocol.stats import Tally

logger = logging.getLogger("wetink.streams")

TOKEN_ITEMS = frozenset({"tokens", "logprobs"})
"""Items of `include` that need to know which token stands where."""


class _Terms(NamedTuple):
    """What attachments that share an edition have asked for alike."""

    policy: PolicySpec
    unit: OffsetUnit
    include: frozenset[IncludeItem]
    multiplexed: bool
    encoding: str


class Stream:
    """One generation: its ledger, its attachments, its end.

    Backend events come in through `accept`; text goes out through attachments. With none for
    `grace_s` seconds the generation is cancelled.
    """

    def __init__(
        self,
        stream_id: str,
        request: GenerationRequest,
        *,
        want_drafts: bool,
        epoch: int,
        model: str,
        owner: str,
        backend: Backend,
        clock: Clock,
        limits: LimitsConfig,
        delivery: DeliveryConfig,
        tallies: Mapping[str, Tally],
        on_end: Callable[[Stream], None],
    ) -> None:
        """`want_drafts`: as its backend is told when it begins, before there is a reader. `owner`:
        of the principal that started it. `tallies`: what attachments are added to, by the kind of
        their policy.
        """
        self.id = stream_id
        self.epoch = epoch
        self.model = model
        self.owner = owner
        self.seed = request.seed
        self.degraded: list[str] = []
        self.draft_model: str | None = None
        """Whose text its tail is, if not its own model's."""
        """What it was given less of, as `open` says it."""
        self.ledger = Ledger()
        self.attachments: list[Attachment] = []
        self.is_kept = True
        """Whether somebody may come back to it after its end."""
        self.conversation: list[Message] = []
        """What it answers, where that has to be kept: for those who go on from it."""
        self._backend = backend
        self._clock = clock
        self._started_at = clock.now()
        self._limits = limits
        self._delivery = delivery
        self._tallies = tallies
        self._on_end = on_end
        self._request_id = request_ids.current()
        self._was_read = False
        self._tokens_wanted = bool(TOKEN_ITEMS.intersection(request.include))
        self._wanting_drafts = 0
        """How many attachments show drafts."""
        self._drafts_wanted = want_drafts
        """What the backend knows of that."""
        self._grace: Timer | None = None
        self._editions: WeakValueDictionary[_Terms, Edition] = WeakValueDictionary()
        """Those that can be shared, for as long as somebody reads them."""

    @property
    def ended(self) -> bool:
        return self.ledger.ending is not None

    @property
    def tokens_used(self) -> int | None:
        """Of prompt and answer together; None as long as that is not known, and if it never is."""
        ending = self.ledger.ending
        if not isinstance(ending, Completed):
            return None
        return ending.usage.prompt_tokens + ending.usage.completion_tokens

    @property
    def age_s(self) -> float:
        """Since its request came."""
        return self._clock.now() - self._started_at

    @property
    def held_bytes(self) -> int:
        """Memory that its text, its tokens and its conversation take."""
        said = sum(map(getsizeof, (each.content for each in self.conversation)))
        called = sum(len(call.arguments) for each in self.conversation for call in each.tool_calls)
        return self.ledger.held_bytes + said + called

    @property
    def log_fields(self) -> dict[str, object]:
        """Of what is logged about it: whose it is."""
        return {"stream": self.id, "request": self._request_id}

    def accept(self, event: BackendEvent) -> None:
        """The backend's sink. Never raises: a backend that breaks the ledger's rules loses the
        stream, not the gateway.
        """
        if self.ledger.ending is not None:
            return
        try:
            self._apply(event)
        except LedgerError:
            logger.exception("the backend broke the ledger", extra={"fields": self.log_fields})
            self.fail(
                ErrorCode.ENGINE_FAILED,
                "the engine contradicted itself; its text cannot be trusted",
                retryable=False,
            )
            return
        self._spread()

    def fail(self, code: ErrorCode, message: str, *, retryable: bool) -> None:
        """Gives the stream up; what was committed stands. Nothing after the end."""
        if not self.ended:
            self.ledger.fail(code.value, message, retryable)
            self._backend.cancel(self.id)  # its "cancelled" comes after the end
            self._spread()

    def cancel(self) -> None:
        """Idempotent. The stream ends when the backend says so."""
        if not self.ended:
            self._backend.cancel(self.id)

    def attach(
        self,
        spec: PolicySpec,
        *,
        connection: Connection,
        cursor: Cursor | None = None,
        unit: OffsetUnit = OffsetUnit.CODEPOINT,
        include: Iterable[IncludeItem] = (),
        multiplexed: bool = False,
        encoding: str = "sse",
        ref: str | None = None,
    ) -> Attachment:
        """Raises RequestError when the cursor does not fit, or too many are attached already, to
        this stream or by this client.

        `multiplexed`: every event names the stream, as one connection carries several.
        `encoding`: what the transport makes of events; what is encoded alike is encoded once.
        """
        most = self._limits.attachments_per_stream
        if len(self.attachments) >= most:
            raise RequestError(
                ErrorCode.OVERLOADED, f"this stream is being read {most} times already"
            )
        shape = spec.shape or connection.principal.shape or self._delivery.shape
        if shape is not None:
            spec = msgspec.structs.replace(spec, shape=shape)
        terms = _Terms(spec, unit, frozenset(include), multiplexed, encoding)
        edition = self._edition(terms)
        tally = self._tallies[str(edition.policy.described["kind"])]
        make: Callable[..., Attachment] = Attachment
        if shape is not None:
            make = partial(ShapedAttachment, shape=shape, one_at_a_time=multiplexed)

        def on_leave(left: Attachment) -> None:
            self._detach(left, connection.principal)

        attachment = make(
            Sender(edition, ref=ref, tally=tally, is_first=not self._was_read),
            self.ledger,
            self._clock,
            connection,
            delivery=self._delivery,
            unsent_bytes=self._limits.unsent_bytes,
            tally=tally,
            on_leave=on_leave,
        )
        connection.principal.attachments.take()
        try:
            attachment.open(cursor)
        except RequestError:
            connection.principal.attachments.give()
            raise
        self.attachments.append(attachment)
        self._was_read = True
        self._tokens_wanted = self._tokens_wanted or bool(TOKEN_ITEMS.intersection(include))
        self._cancel_grace()
        self._count_wanting_drafts(+1 if attachment.policy.wants_drafts else 0)
        return attachment

    def _edition(self, terms: _Terms) -> Edition:
        """The one that attachments of these terms have in common; else one of its own."""
        edition = self._editions.get(terms)
        if edition is None:
            edition = Edition(
                self.ledger,
                SpecPolicy(terms.policy, terms.unit),
                stream=self.id,
                epoch=self.epoch,
                model=self.model,
                unit=terms.unit,
                seed=self.seed,
                include=terms.include,
                started_at=self._started_at,
                multiplexed=terms.multiplexed,
                degraded=self.degraded,
                draft_model=self.draft_model,
            )
            if edition.is_shareable:
                self._editions[terms] = edition
        return edition

    def begin_grace(self) -> None:
        """Nobody reads: after the grace period the generation is cancelled."""
        if not self.ended:
            self._cancel_grace()
            self._grace = self._clock.call_at(
                self._clock.now() + self._delivery.grace_s, self.cancel
            )

    def _apply(self, event: BackendEvent) -> None:
        ledger = self.ledger
        match event:
            case Verified():
                ledger.verify(event.text, event.tail, event.tokens, event.cause)
            case Drafted():
                ledger.draft(event.tail, event.tokens, event.cause)
            case PartBegins():
                ledger.begin_part(event.kind, event.name)
            case Finished():
                if ledger.current.tail:
                    cancelled = event.reason == FinishReason.CANCELLED
                    ledger.draft("", cause=Cause.CANCELLED if cancelled else Cause.DRAFT_REJECTED)
                ledger.finish(event.reason, _usage(event.counts), event.counts.steps)
            case Failed():
                ledger.fail(event.code, event.message, event.retryable)
            case _:
                assert_never(event)

    def _spread(self) -> None:
        now = self._clock.now()
        for attachment in self.attachments:
            attachment.notify(now)
        if self.ledger.ending is not None:
            self._cancel_grace()
            if not self._tokens_wanted:
                self.ledger.forget_tokens()
            self._on_end(self)

    def _detach(self, attachment: Attachment, principal: Principal) -> None:
        self.attachments.remove(attachment)
        principal.attachments.give()
        self._count_wanting_drafts(-1 if attachment.policy.wants_drafts else 0)
        if not self.attachments:
            self.begin_grace()

    def _count_wanting_drafts(self, change: int) -> None:
        self._wanting_drafts += change
        wanted = self._wanting_drafts > 0
        if not self.ended and wanted != self._drafts_wanted:
            self._drafts_wanted = wanted
            self._backend.want_drafts(self.id, wanted)

    def _cancel_grace(self) -> None:
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None


def _usage(counts: TokenCounts) -> Usage:
    return Usage(
        prompt_tokens=counts.prompt,
        cached_prompt_tokens=counts.cached_prompt,
        completion_tokens=counts.completion,
        drafted_tokens=counts.drafted,
        accepted_tokens=counts.accepted,
        rejected_tokens=counts.drafted - counts.accepted,
        reasoning_tokens=counts.reasoning,
    )
