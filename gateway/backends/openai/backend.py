"""An upstream with OpenAI's API as a source of text: its stream is the committed text."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import TYPE_CHECKING

import aiohttp

from gateway.backends.base import Admission, Load, ModelInfo, UpstreamState
from gateway.backends.openai.dialects import DIALECTS, Dialect, dialect_of
from gateway.backends.openai.errors import UpstreamError
from gateway.backends.openai.generation import Generation
from gateway.backends.openai.keys import read_key
from gateway.backends.openai.models import UNKNOWN_CONTEXT_LENGTH, Served, served
from gateway.backends.openai.replicas import Replicas
from gateway.backends.openai.requests import asked_of
from gateway.errors import BackendError
from protocol.errors import ErrorCode, RequestError

if TYPE_CHECKING:
    from gateway.backends.base import Sink
    from gateway.backends.openai.replica import Replica
    from gateway.backends.openai.requests import Asked
    from gateway.config.upstreams import UpstreamConfig
    from protocol.requests import GenerationRequest

logger = logging.getLogger("wetink.upstreams")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 5.0
"""Between two tries to learn what models there are."""
KEEPALIVE_S = 30.0


class OpenAIBackend:
    """One upstream: a server, or several with the same models. Knows no drafts."""

    def __init__(self, config: UpstreamConfig) -> None:
        """Raises ConfigError where its key cannot be read."""
        self.config = config
        self.continued: Counter[str] = Counter()
        """How streams went on whose server was lost: "prefix", "repeat", "mismatch" (said something
        else when asked again), "impossible"."""
        self._key = read_key(config)
        self._replicas = Replicas(config)
        self._session: aiohttp.ClientSession | None = None
        self._models: dict[str, ModelInfo] = {}
        self._names: dict[str, str] = {}
        """What models are called there, by their names here."""
        self._dialect: Dialect = DIALECTS[config.dialect or "compatible"]
        self._live: dict[str, Generation] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def name(self) -> str:
        return self.config.title

    @property
    def ready(self) -> bool:
        """Whether a server could be asked; one that is down can when its rest is over."""
        return bool(self._models) and bool(self._replicas.willing)

    @property
    def places(self) -> int | None:
        most = self.config.max_outstanding
        return None if most is None else most * len(self._replicas.all)

    def models(self) -> list[ModelInfo]:
        return list(self._models.values())

    def load(self) -> Load:
        waiting = sum(not each.admitted.done() for each in self._live.values())
        return Load(running=len(self._live) - waiting, waiting=waiting)

    async def start(self) -> None:
        """Learns what models there are; as long as no server answers it goes on trying. Raises
        BackendError where one answers and trying again would not help.
        """
        if self._session is None:
            self._session = _session(self.config, self._key)
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                self._learn(await self._listed())
                return
            except UpstreamError as error:
                if isinstance(self.config.models, list | dict) and self.config.models:
                    # They are named: what the upstream is can be told later, or not at all.
                    self._learn([])
                    return
                log = logger.warning if pause_s == FIRST_PAUSE_S else logger.debug
                log("%s; trying until it answers", error.message)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def stop(self) -> None:
        for stream, generation in list(self._live.items()):
            self._drop(stream)
            message = "the gateway is shutting down"
            if generation.admitted.done():
                generation.give_up(ErrorCode.SHUTTING_DOWN, message, retryable=True)
            else:
                generation.admitted.set_exception(
                    BackendError(message, ErrorCode.SHUTTING_DOWN, retryable=True)
                )
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def generate(
        self,
        stream: str,
        request: GenerationRequest,
        sink: Sink,
        *,
        want_drafts: bool = False,
        tenant: str = "",
    ) -> Admission:
        """Returns when the upstream has begun to answer; before that its refusals are raised."""
        del want_drafts, tenant
        assert self._session is not None
        generation = Generation(
            self._asked(stream, request),
            self._dialect,
            sink,
            replicas=self._replicas,
            session=self._session,
            config=self.config,
            continued=self.continued,
        )
        self._live[stream] = generation
        task = self._tasks[stream] = asyncio.create_task(self._run(stream, generation))
        try:
            await generation.admitted
        except UpstreamError as error:
            raise error.told() from error
        except asyncio.CancelledError:
            self._live.pop(stream, None)
            task.cancel()
            raise
        return Admission(prompt_tokens=0, seed=request.seed if self.config.takes_seed else None)

    def cancel(self, stream: str) -> None:
        generation = self._drop(stream)
        if generation is None:
            return
        if generation.admitted.done():
            generation.end_cancelled()
        else:
            generation.admitted.set_exception(
                BackendError("cancelled before it began", retryable=True)
            )

    def want_drafts(self, stream: str, wanted: bool) -> None:
        """It has none."""

    def upstreams(self) -> list[UpstreamState]:
        """What is known of it, for those who look after the gateway."""
        return [
            UpstreamState(
                name=self.name,
                dialect=self._dialect.name,
                models=list(self._models),
                priority=self.config.priority,
                weight=self.config.weight,
                continued=dict(self.continued),
                servers=self._replicas.states(),
            )
        ]

    def _asked(self, stream: str, request: GenerationRequest) -> Asked:
        """Raises RequestError where the upstream cannot be asked for it."""
        del stream
        assert request.model is not None
        return asked_of(
            request,
            self._dialect,
            model=self._names[request.model],
            context_length=self._models[request.model].context_length,
            takes_seed=self.config.takes_seed,
        )

    async def _run(self, stream: str, generation: Generation) -> None:
        try:
            await generation.run()
        except Exception:
            logger.exception("reading from upstream %s failed", self.name)
            error = BackendError("the gateway failed to read its upstream", ErrorCode.INTERNAL)
            if generation.admitted.done():
                generation.give_up(error.code, error.message, retryable=False)
            else:
                generation.admitted.set_exception(error)
        finally:
            self._tasks.pop(stream, None)
            self._live.pop(stream, None)

    def _drop(self, stream: str) -> Generation | None:
        generation = self._live.pop(stream, None)
        if generation is not None:
            self._tasks[stream].cancel()
        return generation

    async def _listed(self) -> list[Served]:
        """Of the first server that answers. Raises UpstreamError, BackendError."""
        assert self._session is not None
        last: UpstreamError | None = None
        for replica in self._replicas.all:
            try:
                return served(self.name, await replica.models(self._session))
            except UpstreamError as error:
                last = error
            except RequestError as error:
                raise BackendError(error.message, ErrorCode.ENGINE_FAILED) from None
        assert last is not None
        raise last

    def _learn(self, listed: list[Served]) -> None:
        there = {each.id: each for each in listed}
        wanted = self.config.models
        match wanted:
            case None:
                self._names = {name: name for name in there}
            case dict():
                self._names = dict(wanted)
            case list():
                self._names = {name: name for name in wanted}
        if not self._names:
            raise BackendError(f"upstream {self.name} lists no model")
        for here, name in self._names.items():
            told = there[name].context_length if name in there else None
            length = told or self.config.context_length or UNKNOWN_CONTEXT_LENGTH
            self._models[here] = ModelInfo(id=here, context_length=length)
        if self.config.dialect is None and listed:
            self._dialect = dialect_of(listed[0].owner)
        if listed and (missing := [name for name in self._names.values() if name not in there]):
            logger.warning("upstream %s does not list %s", self.name, ", ".join(missing))


async def examined(config: UpstreamConfig) -> list[tuple[str, list[str] | Exception]]:
    """By address of its servers: the models each lists, or what is wrong: an UpstreamError where
    that may pass. Raises ConfigError where its key cannot be read.
    """
    async with _session(config, read_key(config)) as session:
        return [(each.address, await _examined(each, session)) for each in Replicas(config).all]


async def _examined(replica: Replica, session: aiohttp.ClientSession) -> list[str] | Exception:
    try:
        return [each.id for each in served(replica.address, await replica.models(session))]
    except (UpstreamError, RequestError, BackendError) as error:
        return error


def _session(config: UpstreamConfig, key: str | None) -> aiohttp.ClientSession:
    """How many connections there are is bounded by the streams there may be."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=config.connect_s),
        headers=None if key is None else {"Authorization": f"Bearer {key}"},
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=True,
    )
