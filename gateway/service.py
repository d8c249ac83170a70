"""The gateway without any transport: one backend, its streams, and what a request means here."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.access import Access, read_keys
from gateway.backends.base import HasUpstreams
from gateway.clock import Clock, LoopClock
from gateway.config import GatewayConfig, profiles_of
from gateway.delivery import Connection
from gateway.errors import BackendError
from gateway.policies import SpecPolicy
from gateway.streams import Stream, StreamRegistry
from protocol.errors import ErrorCode, RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.access import Claim, Principal
    from gateway.backends.base import Backend, ModelInfo
    from protocol.requests import GenerationRequest, PolicySpec

logger = logging.getLogger("wetink.gateway")

PRINCIPAL = "wetink.principal"
"""Where an ASGI scope says who it comes from."""
SEED_BITS = 53
"""A drawn seed survives a reader whose only number type is a double, so it can be sent back."""


class Gateway:
    """What the transports share. Made on the running event loop."""

    def __init__(self, config: GatewayConfig, backend: Backend, clock: Clock | None = None) -> None:
        """Raises ConfigError where the keys cannot be read."""
        self.config = config
        self.backend = backend
        self.clock: Clock = clock or LoopClock()
        self.profiles = profiles_of(config.policies)
        # Milliseconds of this start: differs from every earlier one, and is exact in a double.
        self.streams = StreamRegistry(
            backend,
            self.clock,
            epoch=time.time_ns() // 1_000_000,
            limits=config.limits,
            delivery=config.delivery,
            overload=config.overload,
        )
        self.wall_clock = time.time
        self.access = Access(
            config, read_keys(config.access), now=self.clock.now, wall_clock=self.wall_clock
        )
        self.started_at = int(self.wall_clock())
        self.start_failure: BackendError | None = None
        self._starting: asyncio.Task[None] | None = None
        self._draining = False
        self._stopped = asyncio.Event()

    @property
    def ready(self) -> bool:
        return self.status == "ready"

    @property
    def status(self) -> str:
        """Whether a generation could begin now, in one word: "ready", or why not."""
        if self._draining or self._stopped.is_set():
            return "stopping"
        if self.start_failure is not None:
            return "failed"
        if self._starting is None or not self._starting.done():
            return "loading"
        return "ready" if self.backend.ready else "restarting"

    def start(self) -> None:
        """Begins to start the backend; requests are refused with `engine_unavailable` meanwhile."""
        self._starting = asyncio.create_task(self._start_backend())

    async def stop(self) -> None:
        """Ends what is left and stops the backend."""
        self.shut_down()
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        await self.backend.stop()
        self.streams.close()

    async def drain(self) -> None:
        """Takes no new stream any more; returns when the last one has ended. Its readers may come
        back meanwhile.
        """
        self._draining = True
        self.streams.close_door()
        await self.streams.idle()

    def shut_down(self) -> None:
        """Every stream ends with `shutting_down`, so that connections can close. Idempotent."""
        self._stopped.set()
        self.streams.shut_down()

    async def end_streams(self, patience_s: float) -> None:
        """Shuts down and returns when every reader has been told; after `patience_s` the
        connections of those who do not read are cut.
        """
        self.shut_down()
        leaving = [asyncio.ensure_future(each.gone()) for each in self.streams.attachments()]
        if leaving:
            _, staying = await asyncio.wait(leaving, timeout=patience_s)
            for waiting in staying:
                waiting.cancel()
        for attachment in self.streams.attachments():
            attachment.cut()

    async def stopping(self) -> None:
        """Returns when the gateway begins to shut down."""
        await self._stopped.wait()

    async def started(self) -> None:
        """Returns when the backend has started, or has failed to (`start_failure`)."""
        if self._starting is not None:
            await asyncio.wait([self._starting])

    def reload(self, config: GatewayConfig) -> None:
        """Keys, limits, overload, delivery and profiles are those of `config` from now on, the rest
        stays.

        Raises ConfigError, and then nothing has changed.
        """
        keys = read_keys(config.access)
        self.config = msgspec.structs.replace(
            self.config,
            limits=config.limits,
            overload=config.overload,
            delivery=config.delivery,
            policies=config.policies,
        )
        self.profiles = profiles_of(config.policies)
        self.streams.change(config.limits, config.overload, config.delivery)
        self.streams.revoke(self.access.change(config, keys))

    def policy(self, wanted: PolicySpec | str | None, principal: Principal) -> PolicySpec:
        """Raises RequestError naming what is allowed."""
        return principal.policy(wanted, self.profiles, self.config.policies.default)

    def models(self, principal: Principal) -> list[ModelInfo]:
        """Those that the principal may use; none while the backend is not ready."""
        known = self.backend.models() if self.backend.ready else []
        return [model for model in known if principal.may_use(model.id)]

    def model(self, name: str | None, principal: Principal) -> ModelInfo:
        """The model called `name`; None means the first that the principal may use.

        Raises RequestError, or BackendError while there is none.
        """
        if self.status == "stopping":
            raise BackendError(
                "the gateway is shutting down", ErrorCode.SHUTTING_DOWN, retryable=True
            )
        if not self.backend.ready:
            if self.start_failure is not None:
                raise self.start_failure
            if isinstance(self.backend, HasUpstreams):
                raise BackendError("no upstream can be asked at present", retryable=True)
            what = "engine is restarting" if self.status == "restarting" else "model is loading"
            raise BackendError(f"the {what}", retryable=True)
        models = self.models(principal)
        for model in models:
            if name is None or model.id == name:
                return model
        if not models:
            raise RequestError(
                ErrorCode.FORBIDDEN, "this key may use none of the models served here", "model"
            )
        known = ", ".join(model.id for model in models)
        raise RequestError(
            ErrorCode.UNKNOWN_MODEL,
            f"unknown model {(name or '')[:80]!r}; this gateway serves {known}",
            "model",
        )

    def connection(self, scope: Mapping[str, Any]) -> Connection:
        """The connection that an ASGI `scope` is about, which has passed the gate."""
        return Connection(self.clock, scope, scope[PRINCIPAL])

    async def generate(
        self,
        request: GenerationRequest,
        policy: PolicySpec,
        principal: Principal,
        *claims: Claim,
        is_kept: bool = True,
    ) -> Stream:
        """Begins a generation, which takes what its principal may have, and `claims`, until it
        ends. `policy`: of its first attachment; `is_kept`: whether somebody may come back to it
        after its end.

        Raises RequestError or BackendError when it cannot be.
        """
        try:
            resolved = msgspec.structs.replace(
                request,
                model=self.model(request.model, principal).id,
                seed=secrets.randbits(SEED_BITS) if request.seed is None else request.seed,
                priority=principal.priority(request),
            )
            return await self.streams.start(
                resolved,
                principal,
                [*claims, *principal.claims(request)],
                want_drafts=SpecPolicy(policy, request.offsets).wants_drafts,
                fallback=self._fallback(principal) if request.model is None else None,
                is_kept=is_kept,
            )
        except (RequestError, BackendError) as error:
            self.streams.totals.refused[error.code.value] += 1
            raise

    def _fallback(self, principal: Principal) -> str | None:
        """The model that serves in an overload, where there is one that the principal may use."""
        name = self.config.overload.fallback_model
        return name if name in [model.id for model in self.models(principal)] else None

    def _look_for_fallback(self) -> None:
        """Which models there are is not known before the backend has started."""
        name, known = self.config.overload.fallback_model, [m.id for m in self.backend.models()]
        if name is not None and name not in known:
            served = ", ".join(known)
            logger.warning("overload.fallback_model: %s is none of the models: %s", name, served)

    async def _start_backend(self) -> None:
        try:
            await self.backend.start()
            self._look_for_fallback()
        except BackendError as error:
            self.start_failure = error  # said by whoever serves, and by /readyz
        except Exception:
            self.start_failure = BackendError(
                "the backend failed to start", ErrorCode.ENGINE_FAILED
            )
            logger.exception("the backend failed to start")
