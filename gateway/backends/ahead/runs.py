"""Runs of the drafting engine: short greedy generations behind the text that there is.

A run is an ordinary request of the lowest priority. Where its text turns out wrong it is cancelled
and another one begun; all but the last words of what both read is in the engine's prefix cache.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
from typing import TYPE_CHECKING, Protocol

from gateway.backends.ahead import seam
from gateway.backends.ahead.draft import Piece
from gateway.backends.base import BackendEvent, Failed, Finished, Verified
from gateway.errors import BackendError
from protocol.errors import RequestError
from protocol.events import FinishReason
from protocol.requests import Draft, GenerationRequest, Regex

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from gateway.backends.ahead.pace import Pace
    from gateway.backends.ahead.stream import Along
    from gateway.backends.base import Admission, ModelInfo, Sink
    from protocol.events import Token

logger = logging.getLogger("wetink.ahead")

RUN_TOKENS = 32
NO_DRAFTS = Draft(length=0)
"""A step of one row takes a quarter of one that verifies drafts: here the next word counts."""
LOWEST_PRIORITY = -100
SHARE_OF_PLACES = 2
"""Drafts begin as long as one in so many of the engine's places is taken, by whatever: its own
requests always find some free, and where they are many there are no drafts."""


class Drafter(Protocol):
    """A backend that can go on behind text that is given to it."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    @property
    def ready(self) -> bool: ...

    @property
    def places(self) -> int | None: ...

    def models(self) -> list[ModelInfo]: ...

    @property
    def live(self) -> int:
        """Streams it has taken on and not ended."""
        ...

    async def generate(
        self,
        stream: str,
        request: GenerationRequest,
        sink: Sink,
        *,
        want_drafts: bool = False,
        tenant: str = "",
        begun: str = "",
    ) -> Admission:
        """As `Backend.generate`; the answer goes on behind `begun`, which is no part of it."""
        ...

    def cancel(self, stream: str) -> None: ...


class _Run:
    def __init__(self, name: str, stream: Along, healed: str) -> None:
        self.name = name
        self.stream = stream
        self.healed = healed
        """What it still has to say before it says anything new."""
        self.spoke_at: float | None = None


class EngineRuns:
    """All runs of one engine."""

    def __init__(self, drafter: Drafter, pace: Pace, now: Callable[[], float]) -> None:
        self._drafter = drafter
        self._pace = pace
        self._now = now
        self._numbers = itertools.count(1)
        self._runs: dict[Along, _Run] = {}
        self._on_engine: set[str] = set()
        """Names of runs that the engine still has, cancelled ones among them."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._warm = False
        self.begun = 0
        """Runs so far."""

    @property
    def under_way(self) -> int:
        return len(self._runs)

    def begin(self, stream: Along) -> None:
        if not self._has_room():
            return
        if not self._warm:
            self._keep(self.warm_up())
        before, healed = seam.cut(stream.text())
        run = _Run(f"ahead-{next(self._numbers)}", stream, healed)
        self._runs[stream] = run
        stream.running = True
        stream.draft.begin()
        self.begun += 1
        self._keep(self._start(run, before))

    def cancel(self, stream: Along) -> None:
        run = self._end(stream)
        if run is not None:
            self._drafter.cancel(run.name)

    async def warm_up(self) -> None:
        """The engine makes what it needs for healed seams once, which takes it a second or two."""
        if self._drafter.ready and not self._warm:
            self._warm = True
            request = self._request(GenerationRequest(prompt="."), "\n", max_tokens=1)
            with contextlib.suppress(RequestError, BackendError):
                await self._drafter.generate("ahead-0", request, lambda event: None, begun=".")

    async def stop(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _keep(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _has_room(self) -> bool:
        """The engine's own requests come first."""
        drafter = self._drafter
        if not drafter.ready:
            return False
        own = drafter.live - len(self._on_engine)
        places = drafter.places
        return places is None or own + len(self._runs) < max(1, places // SHARE_OF_PLACES)

    async def _start(self, run: _Run, before: str) -> None:
        request = self._request(run.stream.request, run.healed)
        self._on_engine.add(run.name)
        try:
            await self._drafter.generate(
                run.name,
                request,
                lambda event: self._heard(run, event),
                tenant=run.stream.tenant,
                begun=before,
            )
        except (RequestError, BackendError) as error:
            self._on_engine.discard(run.name)
            if self._is_current(run):
                self._end(run.stream)
                if isinstance(error, RequestError):
                    logger.debug("no draft ahead of a stream: %s", error.message)
                    run.stream.give_up()

    def _request(
        self, asked: GenerationRequest, healed: str, max_tokens: int = RUN_TOKENS
    ) -> GenerationRequest:
        return GenerationRequest(
            prompt=asked.prompt,
            messages=asked.messages,
            model=self._drafter.models()[0].id,
            max_tokens=max_tokens,
            temperature=0.0,
            stop=asked.stop,
            grammar=Regex(pattern=seam.pattern(healed)) if healed else None,
            priority=LOWEST_PRIORITY,
            draft=NO_DRAFTS,
            include=["logprobs"],
        )

    def _heard(self, run: _Run, event: BackendEvent) -> None:
        """The sink of a run."""
        if isinstance(event, Finished | Failed):
            self._on_engine.discard(run.name)
        if not self._is_current(run):
            return
        match event:
            case Verified():
                self._observe_pace(run, len(event.text))
                pieces = _pieces(run, event.text, event.tokens)
                if pieces is None:
                    self.cancel(run.stream)
                elif pieces:
                    run.stream.drafted(pieces)
            case Finished(reason=reason):
                self._end(run.stream)
                if reason != FinishReason.CANCELLED:
                    silent = run.spoke_at is None  # no room left in its context
                    run.stream.run_ended(said_all=silent or reason == FinishReason.STOP)
            case Failed():
                self._end(run.stream)
            case _:
                pass

    def _is_current(self, run: _Run) -> bool:
        return self._runs.get(run.stream) is run

    def _end(self, stream: Along) -> _Run | None:
        run = self._runs.pop(stream, None)
        if run is not None:
            stream.running = False
        return run

    def _observe_pace(self, run: _Run, characters: int) -> None:
        now = self._now()
        if run.spoke_at is not None:
            self._pace.observe(characters, now - run.spoke_at)
        run.spoke_at = now


def _pieces(run: _Run, text: str, tokens: list[Token]) -> list[Piece] | None:
    """What is new in a run's text; None where it does not say what it had to."""
    pieces: list[Piece] = []
    at = 0
    for token in tokens:
        piece = text[at : at + token.n]
        at += token.n
        claim = 0.0 if token.logprob is None else math.exp(token.logprob)
        if run.healed:
            if run.healed.startswith(piece):
                run.healed = run.healed[len(piece) :]
                continue
            if not piece.startswith(run.healed):
                return None
            piece, run.healed = piece[len(run.healed) :], ""
        pieces.append(Piece(token.id, piece, claim))
    return pieces
