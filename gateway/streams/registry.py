"""All streams of a gateway, live and kept, and when each is forgotten."""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple, Protocol
from weakref import WeakSet

from gateway.delivery import take_all
from gateway.streams.stream import Stream
from gateway.streams.totals import Totals
from protocol.errors import ErrorCode, RequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.backends.base import Backend
    from gateway.clock import Clock, Timer
    from gateway.config import DeliveryConfig, LimitsConfig
    from gateway.delivery import Attachment, Quota
    from protocol.cursor import Cursor
    from protocol.requests import GenerationRequest

EXPIRED_REMEMBERED = 16_384
"""Ids of expired streams kept, so that a late reader is told `stream_expired`, not
`unknown_stream`."""
STREAM_BYTES = 4096
"""What a kept stream takes besides its text and tokens."""


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
    ) -> None:
        self.epoch = epoch
        self.totals = Totals()
        self.observers: list[StreamObserver] = []
        self._backend = backend
        self._clock = clock
        self._limits = limits
        self._delivery = delivery
        self._live: dict[str, Stream] = {}
        self._quotas: dict[str, Sequence[Quota]] = {}
        """By live stream: what it counts against."""
        self._finished: OrderedDict[str, _Kept] = OrderedDict()
        self._kept_bytes = 0
        self._ending: WeakSet[Stream] = WeakSet()
        """Ended and not kept; their last readers may still be reading."""
        self._expired: OrderedDict[str, None] = OrderedDict()
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

    async def start(
        self,
        request: GenerationRequest,
        quotas: Sequence[Quota] = (),
        *,
        want_drafts: bool = False,
    ) -> Stream:
        """Begins a generation, which takes one of each of `quotas` until it ends.

        `request.model` and `request.seed` are set; `want_drafts`: whether its first attachment will
        show drafts.

        Raises RequestError when it cannot run, BackendError when nothing can.
        """
        if self._closed:
            raise RequestError(ErrorCode.SHUTTING_DOWN, "the gateway is shutting down")
        if len(self._live) >= self._limits.live_streams:
            raise RequestError(
                ErrorCode.TOO_MANY_STREAMS,
                f"{self._limits.live_streams} streams are generating already; try again later",
            )
        take_all(quotas)
        assert request.model is not None
        # 128 random bits: who does not know an id cannot read the stream.
        stream = Stream(
            secrets.token_urlsafe(16),
            request,
            want_drafts=want_drafts,
            epoch=self.epoch,
            model=request.model,
            backend=self._backend,
            clock=self._clock,
            limits=self._limits,
            delivery=self._delivery,
            tallies=self.totals.tallies,
            on_end=self._end,
        )
        self._live[stream.id] = stream
        self._quotas[stream.id] = quotas
        self._idle.clear()
        try:
            admission = await self._backend.generate(
                stream.id, request, stream.accept, want_drafts=want_drafts
            )
        except BaseException:
            self._forget_live(stream)
            stream.is_kept = False
            self._backend.cancel(stream.id)
            raise
        if admission.seed is not None:
            stream.seed = admission.seed
        self.totals.started += 1
        stream.begin_grace()
        for observer in self.observers:
            observer.stream_started(stream, request)
        return stream

    def get(self, stream_id: str, cursor: Cursor | None = None) -> Stream:
        """Raises RequestError for a stream that is over and gone, or never was.

        `cursor`: where to go on; it tells a stream of an earlier life of the
        gateway from one that never was.
        """
        stream = self._live.get(stream_id)
        if stream is not None:
            return stream
        if stream_id in self._finished:
            return self._finished[stream_id].stream
        if stream_id in self._expired:
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

    def close_door(self) -> None:
        """No new stream begins; those there are go on."""
        self._closed = True

    async def idle(self) -> None:
        """Returns when no stream generates."""
        await self._idle.wait()

    def shut_down(self) -> None:
        """Ends every stream with `shutting_down`; no new one begins."""
        self.close_door()
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
        self._forget_live(stream)
        if not stream.is_kept:
            self._ending.add(stream)
            return
        timer = self._clock.call_at(
            self._clock.now() + self._delivery.retention_s, lambda: self._expire(stream.id)
        )
        kept = _Kept(stream, timer, stream.ledger.held_bytes + STREAM_BYTES)
        self._finished[stream.id] = kept
        self._kept_bytes += kept.size
        while (
            len(self._finished) > self._limits.kept_streams
            or self._kept_bytes > self._limits.kept_bytes
        ):
            self._expire(next(iter(self._finished)))

    def _forget_live(self, stream: Stream) -> None:
        self._live.pop(stream.id, None)
        if not self._live:
            self._idle.set()
        for quota in self._quotas.pop(stream.id, ()):
            quota.give()

    def _expire(self, stream_id: str) -> None:
        kept = self._finished.pop(stream_id)
        kept.timer.cancel()
        self._kept_bytes -= kept.size
        self._expired[stream_id] = None
        if len(self._expired) > EXPIRED_REMEMBERED:
            self._expired.popitem(last=False)
