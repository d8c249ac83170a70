"""A `Backend` over any other, with a local engine's drafts ahead of its text."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

import msgspec

from gateway.backends.ahead.calibration import Calibration
from gateway.backends.ahead.pace import Pace, Worth
from gateway.backends.ahead.runs import EngineRuns
from gateway.backends.ahead.stream import Along
from gateway.backends.base import Admission, AheadLoad, Failed, Finished, HasUpstreams
from gateway.errors import BackendError
from protocol.errors import ErrorCode, RequestError
from protocol.events import FinishReason

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from gateway.backends.ahead.runs import Drafter
    from gateway.backends.base import Backend, BackendEvent, Load, ModelInfo, Sink, UpstreamState
    from protocol.requests import GenerationRequest

logger = logging.getLogger("wetink.ahead")


class AheadBackend:
    """The upstream's text is passed on in the call that brings it; nothing waits for the drafter.

    An upstream may take as long to admit a request as to say its first word. So a request counts as
    admitted as soon as there is a draft of its answer; a refusal that comes later ends the stream.
    """

    def __init__(
        self,
        upstream: Backend,
        drafter: Drafter,
        *,
        starts_drafter: bool = False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`starts_drafter`: and stops it; otherwise it is a part of `upstream`, or somebody else's.
        While it is not ready there are no drafts.
        """
        self._upstream = upstream
        self._drafter = drafter
        self._starts_drafter = starts_drafter
        self._now = now
        self._pace = Pace()
        self._runs = EngineRuns(drafter, self._pace, now)
        self._worth: dict[str, Worth] = {}
        """By the upstream's model."""
        self._calibrations: dict[tuple[str, bool], Calibration] = {}
        """By model, and whether it is asked for its likeliest text."""
        self._streams: dict[str, Along] = {}
        self._starting: asyncio.Task[None] | None = None
        self._admitting: set[asyncio.Task[Admission]] = set()
        """Requests that count as admitted, but are not yet by the upstream."""

    @property
    def ready(self) -> bool:
        return self._upstream.ready

    @property
    def places(self) -> int | None:
        return self._upstream.places

    async def start(self) -> None:
        self._starting = asyncio.create_task(self._start_drafter())
        await self._upstream.start()

    async def stop(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        await self._upstream.stop()
        for along in list(self._streams.values()):
            along.close()
        self._streams.clear()
        await self._runs.stop()
        if self._starts_drafter:
            await self._drafter.stop()

    def models(self) -> list[ModelInfo]:
        return self._upstream.models()

    def load(self) -> Load:
        models = self._drafter.models()
        if not models:
            return self._upstream.load()
        runs = self._runs
        ahead = AheadLoad(model=models[0].id, under_way=runs.under_way, begun=runs.begun)
        return msgspec.structs.replace(self._upstream.load(), ahead=ahead)

    def upstreams(self) -> list[UpstreamState]:
        return self._upstream.upstreams() if isinstance(self._upstream, HasUpstreams) else []

    async def generate(
        self,
        stream: str,
        request: GenerationRequest,
        sink: Sink,
        *,
        want_drafts: bool = False,
        tenant: str = "",
    ) -> Admission:
        drafters = [model.id for model in self._drafter.models()]
        if request.model in drafters:
            return await self._upstream.generate(
                stream, request, sink, want_drafts=want_drafts, tenant=tenant
            )
        model, greedy = request.model or "", request.temperature == 0.0
        along = self._streams[stream] = Along(
            request,
            sink,
            self._runs,
            self._calibrations.setdefault((model, greedy), Calibration(greedy=greedy)),
            self._worth.setdefault(model, Worth(self._pace)),
            self._now,
            wanted=want_drafts and request.draft.length != 0,
            tenant=tenant,
        )

        def hear(event: BackendEvent) -> None:
            along.heard(event)
            if along.over:
                self._streams.pop(stream, None)

        along.begin()
        asked = self._upstream.generate(
            stream, request, hear, want_drafts=want_drafts, tenant=tenant
        )
        try:
            admission = await (
                self._whichever_first(along, hear, asked) if along.drafting else asked
            )
        except (Exception, asyncio.CancelledError):
            along.close()
            self._streams.pop(stream, None)
            raise
        along.admitted()
        if drafters and along.possible:
            return msgspec.structs.replace(admission, draft_model=drafters[0])
        return admission

    def cancel(self, stream: str) -> None:
        along = self._streams.get(stream)
        if along is not None:
            along.cancelled = True
        self._upstream.cancel(stream)

    def want_drafts(self, stream: str, wanted: bool) -> None:
        self._upstream.want_drafts(stream, wanted)
        along = self._streams.get(stream)
        if along is not None and along.request.draft.length != 0:
            along.want_drafts(wanted)

    async def _start_drafter(self) -> None:
        try:
            if self._starts_drafter:
                await self._drafter.start()
            await self._runs.warm_up()
        except BackendError as error:
            logger.warning("no drafts ahead of upstreams: %s", error)

    async def _whichever_first(
        self, along: Along, hear: Sink, asked: Coroutine[None, None, Admission]
    ) -> Admission:
        """The upstream's admission, or a draft."""
        admitting = asyncio.create_task(asked)
        drafted = asyncio.create_task(along.has_draft.wait())
        try:
            await asyncio.wait((admitting, drafted), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            admitting.cancel()
            await asyncio.gather(admitting, return_exceptions=True)
            raise
        finally:
            drafted.cancel()
        if admitting.done():
            return admitting.result()
        self._admitting.add(admitting)

        def settled(task: asyncio.Task[Admission]) -> None:
            self._admitting.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None and not along.over:
                hear(_ending(along, error))

        admitting.add_done_callback(settled)
        return Admission(prompt_tokens=0, seed=None)


def _ending(along: Along, error: BaseException) -> Finished | Failed:
    """Of a stream that its upstream has refused after it began."""
    if along.cancelled:
        return Finished(FinishReason.CANCELLED)
    if isinstance(error, BackendError):
        return Failed(error.code, error.message, error.retryable)
    if isinstance(error, RequestError):
        return Failed(error.code, error.message)
    logger.error("an upstream failed", exc_info=error)
    return Failed(ErrorCode.INTERNAL, "the gateway failed; the request is not to blame")
