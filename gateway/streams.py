"""Streams: one generation each, which lives on its own, whoever reads it or leaves."""

from __future__ import annotations

import logging
import secrets
from collections import OrderedDict
from typing import TYPE_CHECKING, assert_never

from gateway.backends.base import Drafted, Failed, Finished, PartBegins, TokenCounts, Verified
from gateway.policies import SpecPolicy
from gateway.subscription import Subscription
from protocol.errors import ErrorCode, LedgerError, RequestError
from protocol.events import Cause, FinishReason, OffsetUnit, Usage
from protocol.ledger import Ledger
from protocol.server import ServerStream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gateway.backends.base import Backend, BackendEvent
    from gateway.clock import Clock, Timer
    from gateway.config import DeliveryConfig, LimitsConfig
    from gateway.outlet import Outlet
    from protocol.cursor import Cursor
    from protocol.events import IncludeItem
    from protocol.requests import GenerationRequest, PolicySpec

logger = logging.getLogger("wetink.streams")

EXPIRED_REMEMBERED = 16_384
"""Ids of expired streams kept, so that a late reader is told `stream_expired`, not
`unknown_stream`."""


class Stream:
    """One generation: its ledger, its readers, its end.

    Backend events come in through `accept`; text goes out through subscriptions. With no reader for
    `grace_s` seconds the generation is cancelled.
    """

    def __init__(
        self,
        stream_id: str,
        request: GenerationRequest,
        *,
        epoch: int,
        model: str,
        backend: Backend,
        clock: Clock,
        limits: LimitsConfig,
        delivery: DeliveryConfig,
        on_end: Callable[[Stream], None],
    ) -> None:
        self.id = stream_id
        self.epoch = epoch
        self.model = model
        self.seed = request.seed
        self.ledger = Ledger()
        self.committed_bytes = 0
        """UTF-8 length of all committed text, all parts."""
        self.subscriptions: list[Subscription] = []
        self._backend = backend
        self._clock = clock
        self._started_at = clock.now()
        self._limits = limits
        self._delivery = delivery
        self._on_end = on_end
        self._draft_readers = 0
        self._grace: Timer | None = None

    @property
    def ended(self) -> bool:
        return self.ledger.ending is not None

    def accept(self, event: BackendEvent) -> None:
        """The backend's sink. Never raises: a backend that breaks the ledger's rules loses the
        stream, not the gateway.
        """
        if self.ended:
            return
        try:
            self._apply(event)
        except LedgerError:
            logger.exception("stream %s: the backend broke the ledger", self.id)
            self.fail(ErrorCode.ENGINE_FAILED, "the engine sent what cannot be", retryable=False)
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
        outlet: Outlet,
        cursor: Cursor | None = None,
        unit: OffsetUnit = OffsetUnit.CODEPOINT,
        include: Iterable[IncludeItem] = (),
        multiplexed: bool = False,
        ref: str | None = None,
    ) -> Subscription:
        """A new reader. Raises RequestError when the cursor does not fit or too many read already.

        `multiplexed`: every event names the stream, as one connection carries several.
        """
        if len(self.subscriptions) >= self._limits.readers_per_stream:
            raise RequestError(
                ErrorCode.OVERLOADED,
                f"this stream has {self._limits.readers_per_stream} readers already",
            )
        policy = SpecPolicy(spec, unit)
        wire = ServerStream(
            self.ledger,
            stream=self.id,
            epoch=self.epoch,
            model=self.model,
            policy=policy.described,
            unit=unit,
            seed=self.seed,
            include=tuple(include),
            ref=ref,
            started_at=self._started_at,
            multiplexed=multiplexed,
        )
        subscription = Subscription(
            self,
            wire,
            policy,
            self._clock,
            outlet,
            unit=unit,
            delivery=self._delivery,
            unsent_bytes=self._limits.unsent_bytes,
        )
        subscription.open(cursor)
        self.subscriptions.append(subscription)
        outlet.wake(subscription)
        self._cancel_grace()
        if policy.wants_drafts:
            self._count_draft_readers(+1)
        return subscription

    def detach(self, subscription: Subscription) -> None:
        """Called by `Subscription.leave`, once."""
        self.subscriptions.remove(subscription)
        if subscription.policy.wants_drafts:
            self._count_draft_readers(-1)
        if not self.subscriptions:
            self.await_reader()

    def await_reader(self) -> None:
        """Nobody reads: the grace period begins."""
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
                self.committed_bytes += len(event.text.encode())
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
        for subscription in self.subscriptions:
            subscription.notify()
        if self.ended:
            self._cancel_grace()
            self._on_end(self)

    def _count_draft_readers(self, change: int) -> None:
        before = self._draft_readers
        self._draft_readers += change
        if not self.ended and bool(before) != bool(self._draft_readers):
            self._backend.want_drafts(self.id, self._draft_readers > 0)

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
    )


class StreamRegistry:
    """All streams of this gateway: a bounded number generating, a bounded number kept after.

    A finished stream can be read for `retention_s`, or until `kept_streams` newer ones have
    finished; after that its id answers `stream_expired`.
    """

    def __init__(
        self,
        backend: Backend,
        clock: Clock,
        *,
        epoch: int,
        limits: LimitsConfig,
        delivery: DeliveryConfig,
    ) -> None:
        self.epoch = epoch
        self._backend = backend
        self._clock = clock
        self._limits = limits
        self._delivery = delivery
        self._live: dict[str, Stream] = {}
        self._finished: OrderedDict[str, tuple[Stream, Timer]] = OrderedDict()
        self._expired: OrderedDict[str, None] = OrderedDict()
        self._closed = False

    @property
    def live(self) -> int:
        return len(self._live)

    async def start(self, request: GenerationRequest) -> Stream:
        """Begins a generation. `request.model` and `request.seed` are set.

        Raises RequestError when it cannot run, BackendError when nothing can.
        """
        if self._closed:
            raise RequestError(ErrorCode.SHUTTING_DOWN, "the gateway is shutting down")
        if len(self._live) >= self._limits.live_streams:
            raise RequestError(
                ErrorCode.TOO_MANY_STREAMS,
                f"{self._limits.live_streams} streams are generating already; try again later",
            )
        assert request.model is not None
        # 128 random bits: who does not know an id cannot read the stream.
        stream = Stream(
            secrets.token_urlsafe(16),
            request,
            epoch=self.epoch,
            model=request.model,
            backend=self._backend,
            clock=self._clock,
            limits=self._limits,
            delivery=self._delivery,
            on_end=self._keep,
        )
        self._live[stream.id] = stream
        try:
            admission = await self._backend.generate(stream.id, request, stream.accept)
        except BaseException:
            self._live.pop(stream.id, None)
            self._backend.cancel(stream.id)
            raise
        if admission.seed is not None:
            stream.seed = admission.seed
        stream.await_reader()
        return stream

    def get(self, stream_id: str, cursor: Cursor | None = None) -> Stream:
        """Raises RequestError for a stream that is over and gone, or never was.

        `cursor`: where the reader wants to go on; it tells a stream of an earlier life of the
        gateway from one that never was.
        """
        stream = self._live.get(stream_id)
        if stream is not None:
            return stream
        if stream_id in self._finished:
            return self._finished[stream_id][0]
        if stream_id in self._expired:
            raise RequestError(
                ErrorCode.STREAM_EXPIRED,
                f"this stream ended and is kept for {self._delivery.retention_s:g} s only",
                "stream",
            )
        if cursor is not None and cursor.epoch != self.epoch:
            raise RequestError(
                ErrorCode.UNKNOWN_EPOCH,
                f"the cursor is from epoch {cursor.epoch}, this is epoch {self.epoch}; no stream "
                "outlives its epoch",
                "cursor",
            )
        raise RequestError(ErrorCode.UNKNOWN_STREAM, "no stream has this id", "stream")

    def readers(self) -> list[Subscription]:
        """All attachments there are."""
        kept = [stream for stream, _ in self._finished.values()]
        return [
            reader for stream in (*self._live.values(), *kept) for reader in stream.subscriptions
        ]

    def shut_down(self) -> None:
        """Ends every stream with `shutting_down`; no new one begins."""
        self._closed = True
        for stream in list(self._live.values()):
            stream.fail(ErrorCode.SHUTTING_DOWN, "the gateway is shutting down", retryable=True)

    def close(self) -> None:
        """Forgets everything, timers included."""
        for _, timer in self._finished.values():
            timer.cancel()
        self._finished.clear()

    def _keep(self, stream: Stream) -> None:
        self._live.pop(stream.id, None)
        timer = self._clock.call_at(
            self._clock.now() + self._delivery.retention_s, lambda: self._expire(stream.id)
        )
        self._finished[stream.id] = (stream, timer)
        if len(self._finished) > self._limits.kept_streams:
            self._expire(next(iter(self._finished)))

    def _expire(self, stream_id: str) -> None:
        _, timer = self._finished.pop(stream_id)
        timer.cancel()
        self._expired[stream_id] = None
        if len(self._expired) > EXPIRED_REMEMBERED:
            self._expired.popitem(last=False)
