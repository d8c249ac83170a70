"""All streams of a gateway, live and kept, and when each is forgotten."""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple, Protocol
from weakref import WeakSet

import msgspec

from gateway.access import take_all
from gateway.config import OverloadConfig
from gateway.overload import Turns, degrade
from gateway.parts import Parser
from gateway.streams.parts import PartsReader
from gateway.streams.stream import Stream
from gateway.streams.totals import Totals
from protocol.errors import ErrorCode, RequestError
from protocol.ledger import Failed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.access import Claim, Principal
    from gateway.backends.base import Backend, Sink
    from gateway.clock import Clock, Timer
    from gateway.config import DeliveryConfig, LimitsConfig
    from gateway.delivery import Attachment
    from protocol.cursor import Cursor
    from protocol.requests import GenerationRequest

EXPIRED_REMEMBERED = 16_384
"""Ids of expired streams kept, so that a late reader is told `stream_expired`, not
`unknown_stream`."""
STREAM_BYTES = 4096
"""What a kept stream takes besides its text and tokens."""


def _ended_while_it_waited(stream: Stream) -> RequestError:
    """Shut down, or its key revoked."""
    ending = stream.ledger.ending
    assert isinstance(ending, Failed)
    return RequestError(ErrorCode(ending.code), ending.message)


class _Kept(NamedTuple):
    stream: Stream
    timer: Timer
    size: int
    """Bytes."""


class StreamObserver(Protocol):
    """Is told of every stream. Must not raise."""

    def stream_started(self, stream: Stream, request: GenerationRequest) -> None:
        """In the task that serves the request. A stream may have ended before."""
        ...

    def stream_ended(self, stream: Stream) -> None:
        """However it did: `stream.ledger.ending` says."""
        ...


class StreamRegistry:
    """All streams of this gateway: a bounded number generating, a bounded number kept after.

    A finished stream can be read for `retention_s`, or until newer ones have filled `kept_streams`
    or `kept_bytes`; after that its id answers `stream_expired`.
    """

    def __init__(
        self,
        backend: Backend,
        clock: Clock,
        *,
        epoch: int,
        limits: LimitsConfig,
        delivery: DeliveryConfig,
        overload: OverloadConfig | None = None,
    ) -> None:
        self.epoch = epoch
        self.totals = Totals()
        self.observers: list[StreamObserver] = []
        self._backend = backend
        self._clock = clock
        self._limits = limits
        self._delivery = delivery
        self._overload = overload or OverloadConfig()
        self.turns = Turns(self._overload, lambda: backend.places, clock)
        self._live: dict[str, Stream] = {}
        self._claims: dict[str, Sequence[Claim]] = {}
        """By live stream: what it has taken and gives back."""
        self._finished: OrderedDict[str, _Kept] = OrderedDict()
        self._kept_bytes = 0
        self._ending: WeakSet[Stream] = WeakSet()
        """Ended and not kept; their last readers may still be reading."""
        self._expired: OrderedDict[str, str] = OrderedDict()
        """Owners by id."""
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def live(self) -> int:
        return len(self._live)

    @property
    def kept(self) -> int:
        """Finished ones that can still be read."""
        return len(self._finished)

    @property
    def kept_bytes(self) -> int:
        """Memory that these take."""
        return self._kept_bytes

    def change(
        self, limits: LimitsConfig, overload: OverloadConfig, delivery: DeliveryConfig
    ) -> None:
        """Other bounds from now on; streams that live go on under those they began with."""
        self._delivery = delivery
        self._limits = limits
        self._overload = overload
        self.turns.change(overload)

    async def start(
        self,
        request: GenerationRequest,
        principal: Principal,
        claims: Sequence[Claim] = (),
        *,
        want_drafts: bool = False,
        fallback: str | None = None,
        is_kept: bool = True,
    ) -> Stream:
        """Begins a generation of `principal`, which takes `claims` until it ends, when its turn has
        come.

        `request.model` and `request.seed` are set; `want_drafts`: whether its first attachment will
        show drafts; `fallback`: a model that may take the place of `request.model`; `is_kept`:
        whether somebody may come back to it after its end.

        Raises RequestError when it cannot run, BackendError when nothing can.
        """
        if self._closed:
            raise RequestError(ErrorCode.SHUTTING_DOWN, "the gateway is shutting down")
        if len(self._live) >= self._limits.live_streams:
            raise RequestError(
                ErrorCode.TOO_MANY_STREAMS,
                f"{self._limits.live_streams} streams are generating already; try again later",
                retry_after_s=self.turns.expected_s(),
            )
        take_all(claims)
        assert request.model is not None
        # 128 random bits: who does not know an id cannot read the stream.
        stream = Stream(
            secrets.token_urlsafe(16),
            request,
            want_drafts=want_drafts,
            epoch=self.epoch,
            model=request.model,
            owner=principal.owner,
            backend=self._backend,
            clock=self._clock,
            limits=self._limits,
            delivery=self._delivery,
            tallies=self.totals.tallies,
            on_end=self._end,
        )
        stream.is_kept = is_kept
        self._live[stream.id] = stream
        self._claims[stream.id] = claims
        self._idle.clear()
        try:
            request = await self._generate(stream, request, claims, want_drafts, fallback)
        except BaseException:
            self._forget_live(stream, tokens=0)
            stream.is_kept = False
            self._backend.cancel(stream.id)
            raise
        self.totals.started += 1
        self.totals.degraded.update(stream.degraded)
        stream.begin_grace()
        for observer in self.observers:
            observer.stream_started(stream, request)
        return stream

    async def _generate(
        self,
        stream: Stream,
        request: GenerationRequest,
        claims: Sequence[Claim],
        want_drafts: bool,
        fallback: str | None,
    ) -> GenerationRequest:
        """Waits for the stream's turn and has the backend begin; gives the request as it was
        served, which in an overload is less than was asked for.
        """
        turn = await self.turns.take(stream.owner, request.priority)
        if stream.ended:
            turn.give(0)
            raise _ended_while_it_waited(stream)
        self._claims[stream.id] = [*claims, turn]
        less, stream.degraded = degrade(request, self._overload, turn.expected_s, fallback)
        try:
            return await self._begin(stream, less, want_drafts)
        except RequestError as error:
            if error.code != ErrorCode.CONTEXT_EXCEEDED or less.model == request.model:
                raise
            # The smaller model has a smaller context: no reason to refuse.
            less, stream.degraded = degrade(request, self._overload, turn.expected_s, None)
            return await self._begin(stream, less, want_drafts)

    async def _begin(
        self, stream: Stream, request: GenerationRequest, want_drafts: bool
    ) -> GenerationRequest:
        """Has the backend begin; gives `request`."""
        assert request.model is not None
        stream.model = request.model
        admission = await self._backend.generate(
            stream.id,
            request,
            self._sink(stream, request),
            want_drafts=want_drafts,
            tenant=stream.owner,
        )
        stream.seed = admission.seed
        stream.draft_model = admission.draft_model
        return request

    def _sink(self, stream: Stream, request: GenerationRequest) -> Sink:
        """Where the backend's events go: through a reader of parts, if there may be any."""
        models = self._backend.models()
        dialect = next((each.dialect for each in models if each.id == request.model), None)
        names = {tool.name for tool in request.tools if request.tool_choice != "none"}
        if dialect is None or request.messages is None:
            return stream.accept
        if request.grammar is not None:
            # What has to follow a grammar from its beginning is no reasoning.
            dialect = msgspec.structs.replace(dialect, thinks="never")
        if not names and dialect.thinks == "never":
            return stream.accept
        return PartsReader(stream.accept, Parser(dialect, names))

    def get(self, stream_id: str, principal: Principal, cursor: Cursor | None = None) -> Stream:
        """Raises RequestError for a stream that is over and gone, or never was; somebody else's
        never was.

        `cursor`: where to go on; it tells a stream of an earlier life of the
        gateway from one that never was.
        """
        stream = self._live.get(stream_id)
        if stream is None and stream_id in self._finished:
            stream = self._finished[stream_id].stream
        if stream is not None and stream.owner == principal.owner:
            return stream
        if self._expired.get(stream_id) == principal.owner:
            raise RequestError(
                ErrorCode.STREAM_EXPIRED,
                f"this stream has ended and was kept for {self._delivery.retention_s:g} s",
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

    def attachments(self) -> list[Attachment]:
        """All there are, to live streams and to ended ones."""
        kept = [kept.stream for kept in self._finished.values()]
        streams = (*self._live.values(), *kept, *self._ending)
        return [each for stream in streams for each in stream.attachments]

    def revoke(self, owners: frozenset[str]) -> None:
        """They are no longer let in: their streams end, and so do those who read them."""
        message = "whoever started this stream is no longer let in"
        self.turns.refuse(owners, RequestError(ErrorCode.UNAUTHORIZED, message))
        for stream in list(self._live.values()):
            if stream.owner in owners:
                stream.fail(ErrorCode.UNAUTHORIZED, message, retryable=False)

    def close_door(self) -> None:
        """No new stream begins; those there are go on."""
        self._closed = True

    async def idle(self) -> None:
        """Returns when no stream generates."""
        await self._idle.wait()

    def shut_down(self) -> None:
        """Ends every stream with `shutting_down`; no new one begins."""
        self.close_door()
        self.turns.close()
        for stream in list(self._live.values()):
            stream.fail(ErrorCode.SHUTTING_DOWN, "the gateway is shutting down", retryable=True)

    def close(self) -> None:
        """Forgets everything, timers included."""
        for kept in self._finished.values():
            kept.timer.cancel()
        self._finished.clear()

    def discard(self, stream: Stream) -> None:
        """Nobody can come back to `stream`: it is cancelled, and nothing is kept of it."""
        stream.is_kept = False
        stream.cancel()
        if stream.id in self._finished:
            self._expire(stream.id)

    def _end(self, stream: Stream) -> None:
        assert stream.ledger.ending is not None
        self.totals.count_end(stream.ledger.ending)
        for observer in self.observers:
            observer.stream_ended(stream)
        self._keep(stream)

    def _keep(self, stream: Stream) -> None:
        self._forget_live(stream, tokens=stream.tokens_used)
        if not stream.is_kept:
            self._ending.add(stream)
            return
        timer = self._clock.call_at(
            self._clock.now() + self._delivery.retention_s, lambda: self._expire(stream.id)
        )
        kept = _Kept(stream, timer, stream.held_bytes + STREAM_BYTES)
        self._finished[stream.id] = kept
        self._kept_bytes += kept.size
        while (
            len(self._finished) > self._limits.kept_streams
            or self._kept_bytes > self._limits.kept_bytes
        ):
            self._expire(next(iter(self._finished)))

    def _forget_live(self, stream: Stream, *, tokens: int | None) -> None:
        self._live.pop(stream.id, None)
        if not self._live:
            self._idle.set()
        for claim in self._claims.pop(stream.id, ()):
            claim.give(tokens)

    def _expire(self, stream_id: str) -> None:
        kept = self._finished.pop(stream_id)
        kept.timer.cancel()
        self._kept_bytes -= kept.size
        self._expired[stream_id] = kept.stream.owner
        if len(self._expired) > EXPIRED_REMEMBERED:
            self._expired.popitem(last=False)
