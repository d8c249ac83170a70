"""Doubles for the gateway's two outsides: time, and the source of tokens."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from typing import TYPE_CHECKING

from gateway.backends.base import (
    Admission,
    BackendEvent,
    Drafted,
    Failed,
    Finished,
    Load,
    ModelInfo,
    Sink,
    TokenCounts,
    Verified,
)
from gateway.parts import Dialect
from protocol.errors import ErrorCode, RequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.errors import BackendError
    from protocol.requests import GenerationRequest


class FakeTimer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class FakeClock:
    """Time stands still until a test moves it."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._order = itertools.count()
        self._timers: list[tuple[float, int, FakeTimer]] = []

    def now(self) -> float:
        return self._now

    def call_at(self, when: float, callback: Callable[[], None]) -> FakeTimer:
        timer = FakeTimer(callback)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Moves on and rings every timer on the way, in order."""
        end = self._now + seconds
        while self._timers and self._timers[0][0] <= end:
            when, _, timer = heapq.heappop(self._timers)
            self._now = max(self._now, when)
            if timer.callback is not None:
                callback, timer.callback = timer.callback, None
                callback()
        self._now = end


class HandBackend:
    """Says what a test hands it, stream by stream, and remembers what it was asked."""

    def __init__(self, *, context_length: int = 100, starts: bool = True) -> None:
        self.requests: dict[str, GenerationRequest] = {}
        self.tenants: dict[str, str] = {}
        self.cancelled: list[str] = []
        self.drafts_wanted: list[tuple[str, bool]] = []
        self.asked: asyncio.Queue[str] = asyncio.Queue()
        """"cancel", "drafts on", "drafts off", in the order of the calls."""
        self.admitted: asyncio.Queue[str] = asyncio.Queue()
        """Ids of streams, in the order of their `generate`."""
        self.waiting: asyncio.Queue[str] = asyncio.Queue()
        """Ids of streams, in the order in which they came to be admitted."""
        self.admits = asyncio.Event()
        """While it is not set, no stream is admitted."""
        self.admits.set()
        self.stopped = False
        self.most: int | None = None
        """How many streams it says it generates at once."""
        self.started = asyncio.Event()
        self.start_failure: BackendError | None = None
        self.load_now = Load()
        self.dialect = Dialect(thinks="marked")
        self._context_length = context_length
        self.context_of: dict[str, int] = {}
        """Of models whose context is another."""
        self._sinks: dict[str, Sink] = {}
        self._ready = False
        if starts:
            self.started.set()

    @property
    def ready(self) -> bool:
        return self._ready

    async def start(self) -> None:
        await self.started.wait()
        if self.start_failure is not None:
            raise self.start_failure
        self._ready = True

    def go_down(self) -> None:
        """As a backend whose engine has died and is started again."""
        self._ready = False

    async def stop(self) -> None:
        self.stopped = True

    @property
    def places(self) -> int | None:
        return self.most

    def models(self) -> list[ModelInfo]:
        return [
            ModelInfo(id="hand", context_length=self._context_length, dialect=self.dialect),
            ModelInfo(id="other", context_length=self._context_length),
        ]

    def load(self) -> Load:
        return self.load_now

    async def generate(
        self,
        stream: str,
        request: GenerationRequest,
        sink: Sink,
        *,
        want_drafts: bool = False,
        tenant: str = "",
    ) -> Admission:
        words = len((request.prompt or "").split())
        most = self.context_of.get(request.model or "", self._context_length)
        if words >= most:
            raise RequestError(
                ErrorCode.CONTEXT_EXCEEDED,
                f"the prompt has {words} tokens, the context {most}",
                "prompt",
            )
        self.waiting.put_nowait(stream)
        await self.admits.wait()
        self.requests[stream] = request
        self.tenants[stream] = tenant
        self._sinks[stream] = sink
        self.admitted.put_nowait(stream)
        if want_drafts:
            self.want_drafts(stream, True)
        return Admission(prompt_tokens=words, seed=request.seed)

    def cancel(self, stream: str) -> None:
        sink = self._sinks.pop(stream, None)
        if sink is not None:
            self.cancelled.append(stream)
            self.asked.put_nowait("cancel")
            sink(Finished("cancelled"))

    def want_drafts(self, stream: str, wanted: bool) -> None:
        self.drafts_wanted.append((stream, wanted))
        self.asked.put_nowait("drafts on" if wanted else "drafts off")

    def say(self, *events: BackendEvent, stream: str | None = None) -> None:
        """Hands events to a stream: the named one, or the only one."""
        if stream is None:
            (stream,) = self._sinks
        sink = self._sinks[stream]
        for event in events:
            if isinstance(event, Finished | Failed):
                self._sinks.pop(stream, None)
            sink(event)


COUNTS = TokenCounts(prompt=2, cached_prompt=1, completion=8, drafted=10, accepted=6, steps=4)

SMALL_TALK: list[BackendEvent] = [
    Drafted("Dr. Smith left"),
    Verified("Dr. Smith paid", cause="draft_rejected"),
    Drafted(" 3.15 euros."),
    Verified(" 3.14", cause="draft_rejected"),
    Drafted(" dollars. 👩\u200d👩\u200d👧"),
    Verified(" dollars.", tail=" 👩", cause="draft_rejected"),
    Drafted(" 👩\u200d🚒 left"),
    Verified(" 👩\u200d🚒 left."),
    Drafted("\n\n你好。Ok"),
    Verified("\n\n你好。", tail="Ok"),
    Verified("Ok"),
    Finished("stop", COUNTS),
]
"""A stream with partial acceptance, rejection, text held back, ZWJ emoji and Han."""

SMALL_TALK_TEXT = "Dr. Smith paid 3.14 dollars. 👩\u200d🚒 left.\n\n你好。Ok"
