"""A `Backend` over any other, with a local engine's drafts ahead of its text."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import msgspec

from gateway.backends.ahead.calibration import Calibration
from gateway.backends.ahead.pace import Pace, Worth
from gateway.backends.ahead.runs import EngineRuns
from gateway.backends.ahead.stream import Along

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.backends.ahead.runs import Drafter
    from gateway.backends.base import Admission, Backend, BackendEvent, Load, ModelInfo, Sink
    from protocol.requests import GenerationRequest


class AheadBackend:
    """The upstream's text is passed on in the call that brings it; nothing waits for the drafter.

    `drafter` is started and stopped by whoever made it; while it is not ready there are no drafts.
    """

    def __init__(
        self,
        upstream: Backend,
        drafter: Drafter,
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._upstream = upstream
        self._drafter = drafter
        self._now = now
        pace = Pace()
        self._pace = pace
        self._runs = EngineRuns(drafter, pace, now)
        self._worth: dict[str, Worth] = {}
        """By the upstream's model."""
        self._calibrations: dict[tuple[str, bool], Calibration] = {}
        """By model, and whether it is asked for its likeliest text."""
        self._streams: dict[str, Along] = {}
        self._warming: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        return self._upstream.ready

    @property
    def places(self) -> int | None:
        return self._upstream.places

    async def start(self) -> None:
        await self._upstream.start()
        self._warming = asyncio.create_task(self._runs.warm_up())

    async def stop(self) -> None:
        await self._upstream.stop()
        if self._warming is not None:
            self._warming.cancel()
        for along in list(self._streams.values()):
            along.close()
        self._streams.clear()
        await self._runs.stop()

    def models(self) -> list[ModelInfo]:
        drafts = self._drafter.models()
        name = drafts[0].id if drafts else None
        return [msgspec.structs.replace(m, draft_model=name) for m in self._upstream.models()]

    def load(self) -> Load:
        return self._upstream.load()

    async def generate(
        self,
        stream: str,
        request: GenerationRequest,
        sink: Sink,
        *,
        want_drafts: bool = False,
        tenant: str = "",
    ) -> Admission:
        model, greedy = request.model or "", request.temperature == 0.0
        along = Along(
            request,
            sink,
            self._runs,
            self._calibrations.setdefault((model, greedy), Calibration(greedy=greedy)),
            self._worth.setdefault(model, Worth(self._pace)),
            self._now,
            wanted=want_drafts and request.draft.length != 0,
            tenant=tenant,
        )
        self._streams[stream] = along

        def hear(event: BackendEvent) -> None:
            along.heard(event)
            if along.over:
                self._streams.pop(stream, None)

        along.begin()
        try:
            admission = await self._upstream.generate(
                stream, request, hear, want_drafts=want_drafts, tenant=tenant
            )
        except (Exception, asyncio.CancelledError):
            along.close()
            self._streams.pop(stream, None)
            raise
        along.admitted()
        return admission

    def cancel(self, stream: str) -> None:
        self._upstream.cancel(stream)

    def want_drafts(self, stream: str, wanted: bool) -> None:
        self._upstream.want_drafts(stream, wanted)
        along = self._streams.get(stream)
        if along is not None and along.request.draft.length != 0:
            along.want_drafts(wanted)
