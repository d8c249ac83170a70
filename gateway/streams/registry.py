"""All streams of a gateway, live and kept, and when each is forgotten."""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from typing import TYPE_CHECKING

from gateway.streams.stream import Stream
from protocol.errors import ErrorCode, RequestError

if TYPE_CHECKING:
    from gateway.backends.base import Backend
    from gateway.clock import Clock, Timer
    from gateway.config import DeliveryConfig, LimitsConfig
    from gateway.delivery import Attachment
    from protocol.cursor import Cursor
    from protocol.requests import GenerationRequest

EXPIRED_REMEMBERED = 16_384
"""Ids of expired streams kept, so that a late reader is told `stream_expired`, not
`unknown_stream`."""


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
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def live(self) -> int:
        return len(self._live)

    async def start(self, request: GenerationRequest, *, want_drafts: bool = False) -> Stream:
        """Begins a generation. `request.model` and `request.seed` are set; `want_drafts`: whether
        its first reader will show drafts.

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
            want_drafts=want_drafts,
            epoch=self.epoch,
            model=request.model,
            backend=self._backend,
            clock=self._clock,
            limits=self._limits,
            delivery=self._delivery,
            on_end=self._keep,
        )
        self._live[stream.id] = stream
        self._idle.clear()
        try:
            admission = await self._backend.generate(
                stream.id, request, stream.accept, want_drafts=want_drafts
            )
        except BaseException:
            self._remove(stream)
            self._backend.cancel(stream.id)
            raise
        if admission.seed is not None:
            stream.seed = admission.seed
        stream.begin_grace()
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
            return self._finished[stream_id][0]
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
        """All there are, to live streams and to kept ones."""
        kept = [stream for stream, _ in self._finished.values()]
        return [each for stream in (*self._live.values(), *kept) for each in stream.attachments]

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
        for _, timer in self._finished.values():
            timer.cancel()
        self._finished.clear()

    def _remove(self, stream: Stream) -> None:
        self._live.pop(stream.id, None)
        if not self._live:
            self._idle.set()

    def _keep(self, stream: Stream) -> None:
        self._remove(stream)
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
