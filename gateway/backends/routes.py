"""Several sources of tokens behind one gateway: which of them serves a model.

Those with the highest priority are asked, by weight among equals; where one is down, overloaded or
fails before it has begun to answer, the next one is.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, NamedTuple

from gateway.backends.base import Failed, Finished, HasUpstreams, Load
from gateway.errors import BackendError
from protocol.errors import ErrorCode, RequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.backends.base import (
        Admission,
        Backend,
        BackendEvent,
        ModelInfo,
        Sink,
        UpstreamState,
    )
    from gateway.backends.openai import OpenAIBackend
    from protocol.requests import GenerationRequest

logger = logging.getLogger("wetink.upstreams")

_ELSEWHERE = frozenset({ErrorCode.RATE_LIMITED, ErrorCode.OVERLOADED, ErrorCode.TOO_MANY_STREAMS})
"""Codes of a refusal that is not about the request."""


class Route(NamedTuple):
    """A backend, and when it is chosen."""

    backend: Backend
    priority: int = 0
    weight: float = 1.0


class Routes:
    """A backend made of others: each of its models is served by those that have it."""

    def __init__(
        self,
        upstreams: Sequence[OpenAIBackend],
        own: Backend | None = None,
        *,
        chance: random.Random | None = None,
    ) -> None:
        """`own`: the gateway's own source, with priority 0 and weight 1. `chance`: what chooses
        among equals.
        """
        self._routes = [Route(each, each.config.priority, each.config.weight) for each in upstreams]
        if own is not None:
            self._routes.insert(0, Route(own))
        self._chance = chance or random.Random()
        self._starting: list[asyncio.Task[None]] = []
        self._chosen: dict[str, Backend] = {}
        """By stream."""

    @property
    def ready(self) -> bool:
        return any(route.backend.ready for route in self._routes)

    @property
    def places(self) -> int | None:
        """None as soon as one has no bound: it takes what the others do not."""
        places = [route.backend.places for route in self._routes if route.backend.ready]
        return None if None in places else sum(each or 0 for each in places) or None

    async def start(self) -> None:
        """Returns when one of them can be asked; the others come when they do. Raises BackendError
        when none ever will.
        """
        self._starting = [asyncio.create_task(route.backend.start()) for route in self._routes]
        failure: BackendError | None = None
        left: set[asyncio.Task[None]] = set(self._starting)
        for task in self._starting:
            task.add_done_callback(_tell_failure)
        while left:
            done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = task.exception()
                if error is None:
                    return
                if not isinstance(error, BackendError):
                    raise error
                failure = error
        assert failure is not None
        raise failure

    async def stop(self) -> None:
        for task in self._starting:
            task.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)
        await asyncio.gather(*[route.backend.stop() for route in self._routes])

    def models(self) -> list[ModelInfo]:
        """Of several with one name, what the first one to be asked says of it."""
        models: dict[str, ModelInfo] = {}
        for route in sorted(self._routes, key=lambda route: -route.priority):
            for model in route.backend.models():
                models.setdefault(model.id, model)
        return list(models.values())

    def load(self) -> Load:
        loads = [route.backend.load() for route in self._routes]
        return Load(
            running=sum(load.running for load in loads),
            waiting=sum(load.waiting for load in loads),
            engine=next((load.engine for load in loads if load.engine is not None), None),
            engine_restarts=sum(load.engine_restarts for load in loads),
        )

    def upstreams(self) -> list[UpstreamState]:
        return [
            state
            for route in self._routes
            if isinstance(route.backend, HasUpstreams)
            for state in route.backend.upstreams()
        ]

    async def generate(
        self,
        stream: str,
        request: GenerationRequest,
        sink: Sink,
        *,
        want_drafts: bool = False,
        tenant: str = "",
    ) -> Admission:
        failure: RequestError | BackendError | None = None
        for backend in self._order(request.model):
            self._chosen[stream] = backend

            def pass_on(event: BackendEvent, stream: str = stream) -> None:
                if isinstance(event, Finished | Failed):
                    self._chosen.pop(stream, None)
                sink(event)

            try:
                return await backend.generate(
                    stream, request, pass_on, want_drafts=want_drafts, tenant=tenant
                )
            except (BackendError, RequestError) as error:
                self._chosen.pop(stream, None)
                if isinstance(error, RequestError) and error.code not in _ELSEWHERE:
                    raise
                failure = error
            except BaseException:
                self._chosen.pop(stream, None)
                raise
        if failure is None:
            failure = BackendError(f"nothing serves {request.model} at present", retryable=True)
        raise failure

    def cancel(self, stream: str) -> None:
        if (backend := self._chosen.get(stream)) is not None:
            backend.cancel(stream)

    def want_drafts(self, stream: str, wanted: bool) -> None:
        if (backend := self._chosen.get(stream)) is not None:
            backend.want_drafts(stream, wanted)

    def _order(self, model: str | None) -> list[Backend]:
        """All that serve `model`, in the order in which they are asked; what is down comes last."""
        serving = [
            route
            for route in self._routes
            if any(info.id == model for info in route.backend.models())
        ]
        # The larger of weighted draws comes first (Efraimidis and Spirakis, 2006).
        drawn = {id(route): self._chance.random() ** (1 / route.weight) for route in serving}
        serving.sort(
            key=lambda route: (route.backend.ready, route.priority, drawn[id(route)]), reverse=True
        )
        return [route.backend for route in serving]


def _tell_failure(starting: asyncio.Task[None]) -> None:
    if not starting.cancelled() and (error := starting.exception()) is not None:
        logger.error("a source of tokens cannot start: %s", error)
