"""One stream from an upstream: asked for, read, tried again, continued, ended."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from gateway.backends.base import Failed, Finished, TokenCounts
from gateway.backends.openai.answers import Answer
from gateway.backends.openai.continuation import Comparison, Mismatch, Told, way_on
from gateway.backends.openai.errors import UpstreamError
from gateway.errors import BackendError
from protocol.errors import ErrorCode, RequestError
from protocol.events import FinishReason

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Sequence

    import aiohttp

    from gateway.backends.base import BackendEvent, Sink
    from gateway.backends.openai.dialects import Dialect
    from gateway.backends.openai.replica import Exchange, Replica
    from gateway.backends.openai.replicas import Replicas
    from gateway.backends.openai.requests import Asked
    from gateway.config.upstreams import UpstreamConfig

logger = logging.getLogger("wetink.upstreams")

FIRST_PAUSE_S = 0.1
"""Before a request is tried again at a server that has just failed it; doubles each time."""


class Generation:
    """Its events go to `sink`, up to one `Finished` or `Failed`, unless it is cancelled."""

    def __init__(
        self,
        asked: Asked,
        dialect: Dialect,
        sink: Sink,
        *,
        replicas: Replicas,
        session: aiohttp.ClientSession,
        config: UpstreamConfig,
        continued: Counter[str],
    ) -> None:
        """`continued`: where is counted how continuations went."""
        self.admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Raises RequestError, BackendError or UpstreamError when it cannot begin."""
        self._asked = asked
        self._dialect = dialect
        self._sink = sink
        self._replicas = replicas
        self._session = session
        self._config = config
        self._continued = continued
        self._told = Told()
        self._earlier = TokenCounts()
        """Of answers that this stream's text begins with."""
        self._answer = Answer()
        self._retries = config.retries
        self._continuations = config.max_continuations
        self._is_over = False

    @property
    def counts(self) -> TokenCounts:
        """Of what was told so far."""
        return _sum(self._earlier, self._answer.counts)

    def end_cancelled(self) -> None:
        """Nothing more is said of it but that."""
        self._tell(Finished(FinishReason.CANCELLED, self.counts))

    def give_up(self, code: ErrorCode, message: str, *, retryable: bool) -> None:
        self._tell(Failed(code, message, retryable))

    async def run(self) -> None:
        """To its end. Whoever cancels this ends the stream himself."""
        try:
            exchange = await self._open(self._asked)
            self.admitted.set_result(None)
            await self._read_on(exchange)
        except (RequestError, BackendError, UpstreamError) as error:
            if not self.admitted.done():
                self.admitted.set_exception(error)
                return
            retryable = not isinstance(error, RequestError) and getattr(error, "retryable", True)
            self.give_up(error.code, error.message, retryable=retryable)

    async def _read_on(self, exchange: Exchange) -> None:
        comparison: Comparison | None = None
        while (error := await self._read(exchange, comparison)) is not None:
            if self._answer.is_final:
                raise BackendError(error.message, ErrorCode.ENGINE_FAILED)
            asked, comparison = self._way_on(error)
            self._answer = Answer()
            exchange = await self._open(asked)

    async def _read(
        self, exchange: Exchange, comparison: Comparison | None
    ) -> UpstreamError | None:
        """Reads an answer to its end; gives what it broke off with. Raises BackendError where what
        is said again is not what was told.
        """
        answer = self._answer

        def take(data: bytes) -> bool:
            if not self._take(answer.feed(data), comparison):
                return answer.failure is not None
            return True

        broken: UpstreamError | None = None
        try:
            try:
                await exchange.read(take)
            except UpstreamError as error:
                broken = error
            if self._is_over or self._take(answer.end(), comparison):
                exchange.succeed()
                await exchange.drain()
                return None
            broken = broken or UpstreamError(f"upstream {self._config.title}: {answer.failure}")
            exchange.fail(broken)
            return broken
        finally:
            exchange.close()

    def _take(self, events: Sequence[BackendEvent], comparison: Comparison | None) -> bool:
        """Tells what is new; whether that was the end."""
        try:
            new = events if comparison is None else comparison.pass_on(events)
        except Mismatch as mismatch:
            self._continued["mismatch"] += 1
            raise BackendError(
                f"upstream {self._config.title} was lost in the middle of its text, and asked "
                f"again, {mismatch}",
                ErrorCode.ENGINE_FAILED,
                retryable=True,
            ) from None
        for event in new:
            if isinstance(event, Finished):
                self._tell(Finished(event.reason, _sum(self._earlier, event.counts)))
                return True
            self._told.add(event)
            self._tell(event)
        return False

    def _way_on(self, error: UpstreamError) -> tuple[Asked, Comparison | None]:
        """What to ask after `error`; raises it where nothing is to be asked any more."""
        config = self._config
        if self._told.is_empty:
            if self._retries == 0:
                raise error
            self._retries -= 1
            return self._asked, None
        tokens = self.counts.completion
        way = None
        if self._continuations > 0:
            way = way_on(config.continuation, self._asked, self._dialect, self._told, tokens)
        if way is None:
            self._continued["impossible"] += 1
            raise BackendError(
                f"{error.message}; its text so far stands, and could not be continued",
                ErrorCode.ENGINE_FAILED,
                retryable=True,
            )
        self._continuations -= 1
        asked, comparison = way
        self._continued["prefix" if comparison is None else "repeat"] += 1
        logger.warning("%s; the stream is continued", error.message)
        if comparison is None:
            self._earlier = TokenCounts(prompt=self.counts.prompt, completion=tokens)
        return asked, comparison

    async def _open(self, asked: Asked) -> Exchange:
        """Asks, and asks again where that may help, for as many times as are left."""
        tried: set[Replica] = set()
        pause_s = FIRST_PAUSE_S
        while True:
            replica: Replica | None = None
            try:
                replica = self._replicas.pick(tried)
                return await replica.open(self._session, asked)
            except UpstreamError as error:
                if replica is not None:
                    tried.add(replica)
                others = any(each not in tried for each in self._replicas.willing)
                wait_s = 0.0 if others else max(pause_s, error.retry_after_s or 0.0)
                if self._retries == 0 or wait_s > self._config.longest_retry_after_s:
                    raise
                self._retries -= 1
                pause_s *= 2
                await asyncio.sleep(wait_s)

    def _tell(self, event: BackendEvent) -> None:
        if self._is_over:  # its reader's doing, in answer to what was just told
            return
        self._is_over = isinstance(event, Finished | Failed)
        self._sink(event)


def _sum(earlier: TokenCounts, last: TokenCounts) -> TokenCounts:
    """The prompt counts once: its continuation is no work that its user asked for."""
    return TokenCounts(
        prompt=earlier.prompt or last.prompt,
        cached_prompt=0 if earlier.prompt else last.cached_prompt,
        completion=earlier.completion + last.completion,
        drafted=earlier.drafted + last.drafted,
        accepted=earlier.accepted + last.accepted,
        reasoning=earlier.reasoning + last.reasoning,
    )
