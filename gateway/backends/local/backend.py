"""Tokens from an engine of our own, in another process.

The process is restarted when it dies or hangs. Every stream it had is then continued from its
committed tokens with its seed, and says the same as if nothing had happened: readers see one
retraction of the tail, at most, and a pause. Which may go on at once, and which has to be given up
because of whom engines end, is the quarantine's decision.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from functools import lru_cache
from typing import TYPE_CHECKING, assert_never

import msgspec

from engine import frames
from gateway import request_ids
from gateway.backends.base import (
    Admission,
    Drafted,
    EngineLoad,
    Failed,
    Finished,
    Load,
    ModelInfo,
    Sink,
    TokenCounts,
    Verified,
)
from gateway.backends.local.process import Step
from gateway.backends.local.quarantine import TRIAL_S, Quarantine
from gateway.backends.local.request import start_frame
from gateway.backends.local.supervisor import Supervisor
from gateway.config import SupervisionConfig
from gateway.errors import BackendError
from gateway.parts import Dialect, dialect_of
from protocol.errors import ErrorCode, RequestError
from protocol.events import Cause, FinishReason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.backends.local.process import Answer
    from gateway.backends.local.supervisor import OnProgress
    from gateway.config import EngineConfig
    from protocol.requests import GenerationRequest

logger = logging.getLogger("wetink.engine")

WORKER = (sys.executable, "-m", "engine.worker")


class _Live:
    """A stream under way: what is needed to continue it on another engine."""

    def __init__(self, start: frames.Start, sink: Sink) -> None:
        self.start = start
        self.sink = sink
        self.admitted: asyncio.Future[Admission] = asyncio.get_running_loop().create_future()
        self.counts = TokenCounts()
        """As the engines reported them last."""
        self.committed: list[int] = []
        self.committed_chars = 0
        self.tail = ""
        self.cancelled = False
        self.first_cached_prompt: int | None = None
        """Prompt tokens that the stream's first engine had in its cache, once that engine is gone.
        Later ones compute again, or find, what the user has been served already."""
        self.request_id = request_ids.current()
        self.overdue: asyncio.TimerHandle | None = None
        """Ends a cancelled stream whose engine does not."""

    @property
    def log_fields(self) -> dict[str, object]:
        """Of what is logged about it: whose it is."""
        return {"stream": self.start.stream, "request": self.request_id}

    def continued(self) -> frames.Start:
        """What starts it on the next engine."""
        counts = self.counts
        return msgspec.structs.replace(
            self.start,
            committed=self.committed,
            committed_chars=self.committed_chars,
            counts=frames.TokenCounts(
                drafted=counts.drafted, accepted=counts.accepted, steps=counts.steps
            ),
        )

    def counted(self, counts: TokenCounts) -> TokenCounts:
        """An engine's counts, as the stream's."""
        if self.first_cached_prompt is None:
            return counts
        return msgspec.structs.replace(counts, cached_prompt=self.first_cached_prompt)

    def lose_engine(self) -> None:
        self.tail = ""
        if self.committed and self.first_cached_prompt is None:
            self.first_cached_prompt = self.counts.cached_prompt


class LocalBackend:
    """A `Backend` over one engine process at a time, which a `Supervisor` keeps running.

    `worker`: the program to run, with its first arguments; `--socket` and `--config` are added.
    While suspects are on trial (see quarantine.py) new streams wait for their admission.
    """

    def __init__(
        self,
        config: EngineConfig,
        limits: SupervisionConfig | None = None,
        *,
        on_progress: OnProgress | None = None,
        worker: Sequence[str] = WORKER,
    ) -> None:
        limits = limits or SupervisionConfig()
        self._config = config
        self._live: dict[str, _Live] = {}
        self._quarantine = Quarantine()
        self._trial: asyncio.TimerHandle | None = None
        self._cancel_s = limits.cancel_s
        self._supervisor = Supervisor(
            self, worker, msgspec.json.encode(config), limits, on_progress
        )

    @property
    def ready(self) -> bool:
        return self._supervisor.ready

    @property
    def engine_pid(self) -> int | None:
        """Process id of the present engine."""
        return self._supervisor.engine_pid

    async def start(self) -> None:
        """Raises `BackendError` when the engine cannot start; it is not tried again then."""
        await self._supervisor.start()

    async def stop(self) -> None:
        """End the engine, in bounded time; streams still live end with `shutting_down`."""
        await self._supervisor.stop()
        if self._trial is not None:
            self._trial.cancel()
        self.give_up(
            BackendError("the gateway is shutting down", ErrorCode.SHUTTING_DOWN, retryable=True)
        )

    @property
    def places(self) -> int | None:
        info = self._supervisor.info
        return None if info is None else info.max_sequences

    @property
    def live(self) -> int:
        """Streams taken on and not ended, as of now."""
        return len(self._live)

    def models(self) -> list[ModelInfo]:
        info = self._supervisor.info
        if info is None:
            return []
        return [
            ModelInfo(
                id=info.model,
                context_length=info.context_length,
                drafters=info.drafters,
                default_drafter=info.default_drafter,
                dialect=_dialect_of(info.chat_template, info.answer_opening),
            )
        ]

    def load(self) -> Load:
        """Streams that have not been admitted wait as well: for an engine, or for its answer."""
        load, info = self._supervisor.load, self._supervisor.info
        arriving = sum(not live.admitted.done() for live in self._live.values())
        engine = None
        if self.ready and info is not None:
            engine = EngineLoad(
                kv_blocks=info.kv_blocks,
                kv_blocks_used=load.kv_blocks_used,
                steps=load.steps,
                preemptions=load.preemptions,
                sentinel_checks=load.sentinel_checks,
                sentinel_mismatches=load.sentinel_mismatches,
            )
        return Load(
            running=load.running,
            waiting=load.waiting + arriving,
            engine=engine,
            engine_restarts=self._supervisor.restarts,
        )

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
        """`begun`: what the answer has said already; the completion goes on behind it."""
        if not self.ready:
            raise BackendError("the engine is not running; it is being restarted", retryable=True)
        info = self._supervisor.info
        assert info is not None
        dialect = _dialect_of(info.chat_template, info.answer_opening)
        start = start_frame(
            stream, request, dialect, want_drafts=want_drafts, tenant=tenant, begun=begun
        )
        live = _Live(start, sink)
        self._live[stream] = live
        self._put_on_engine(self._quarantine.begin(stream))
        try:
            return await live.admitted
        except asyncio.CancelledError:
            # Nobody waits for it any more: what still comes of it is not delivered.
            if stream in self._live:
                self._supervisor.send(frames.Cancel(stream))
                self._forget(stream)
            raise

    def cancel(self, stream: str) -> None:
        live = self._live.get(stream)
        if live is None or live.cancelled:
            return
        live.cancelled = True
        if self.ready and not self._quarantine.waits(stream):
            self._supervisor.send(frames.Cancel(stream))
            loop = asyncio.get_running_loop()
            live.overdue = loop.call_later(self._cancel_s, self._end_cancelled, stream)
        else:
            self._end_cancelled(stream)

    def want_drafts(self, stream: str, wanted: bool) -> None:
        live = self._live.get(stream)
        if live is not None:
            live.start = msgspec.structs.replace(live.start, want_drafts=wanted)
            if self.ready:
                self._supervisor.send(frames.WantDrafts(stream, wanted))

    @property
    def verify_delay_ms(self) -> float:
        return self._config.verify_delay_ms or 0.0

    def slow_verification(self, delay_ms: float) -> None:
        self._config = msgspec.structs.replace(self._config, verify_delay_ms=delay_ms)
        self._supervisor.config = msgspec.json.encode(self._config)
        self._supervisor.send(frames.SlowVerification(delay_ms))

    def kill_engine(self) -> None:
        self._supervisor.kill()

    def engine_ready(self) -> None:
        """Every stream of an engine that ended goes on where its committed tokens end."""
        if suspects := self._quarantine.suspects:
            logger.warning("the engine keeps ending: trying %s one at a time", _streams(suspects))
        self._put_on_engine(self._quarantine.engine_ready())

    def receive(self, frame: Step | Answer) -> None:
        match frame:
            case Step():
                for stream, event in frame.events:
                    self._deliver(stream, event)
            case frames.Accepted():
                self._accepted(frame)
            case frames.Rejected():
                self._rejected(frame)
            case _:
                assert_never(frame)

    def engine_lost(self) -> bool:
        """What it had drafted is gone with it. Streams wait for the next one."""
        culprit = self._quarantine.engine_lost()
        for stream, live in list(self._live.items()):
            had_tail = bool(live.tail)
            live.lose_engine()
            if had_tail:
                self._tell(stream, live, Drafted("", cause=Cause.ENGINE_RESTART))
            if live.cancelled:
                self._end_cancelled(stream)
        if culprit is None:
            return False
        if (live := self._forget(culprit)) is not None:
            logger.error(
                "gave a stream up: the engine ends whenever it works on it",
                extra={"fields": live.log_fields},
            )
            message = "the engine ends whenever it works on this stream, and on no other"
            self._give_up(culprit, live, BackendError(message, ErrorCode.ENGINE_FAILED))
        return True

    def give_up(self, error: BackendError) -> None:
        """Every stream ends with `error`."""
        for stream in list(self._live):
            if (live := self._forget(stream)) is not None:
                self._give_up(stream, live, error)

    def _put_on_engine(self, streams: list[str]) -> None:
        continued = 0
        for stream in streams:
            live = self._live[stream]
            self._supervisor.send(live.continued())
            continued += live.admitted.done()
        if continued:
            logger.info("%s continued", _streams(continued))
        on_trial = self._quarantine.on_trial
        if on_trial in streams:
            if self._trial is not None:
                self._trial.cancel()
            loop = asyncio.get_running_loop()
            self._trial = loop.call_later(TRIAL_S, self._trial_is_long, on_trial)

    def _trial_is_long(self, stream: str) -> None:
        self._put_on_engine(self._quarantine.trial_is_long(stream))

    def _forget(self, stream: str) -> _Live | None:
        """It is over for this backend; whoever waited for that on the engine's side may go on."""
        live = self._live.pop(stream, None)
        if live is not None and live.overdue is not None:
            live.overdue.cancel()
        self._put_on_engine(self._quarantine.end(stream))
        return live

    def _deliver(self, stream: str, event: Drafted | Verified | Finished | Failed) -> None:
        live = self._live.get(stream)
        if live is None:
            return
        match event:
            case Drafted(tail=tail):
                live.tail = tail
            case Verified():
                live.tail = event.tail
                live.committed.extend(token.id for token in event.tokens)
                live.committed_chars += len(event.text)
                live.counts = live.counted(event.counts or live.counts)
            case Finished():
                event = Finished(event.reason, live.counted(event.counts))
            case Failed():
                pass
            case _:
                assert_never(event)
        if isinstance(event, Finished | Failed):
            self._forget(stream)
        self._tell(stream, live, event)
        if stream in self._live:  # not ended by what its sink did
            self._put_on_engine(self._quarantine.got_further(stream, len(live.committed)))

    def _tell(
        self, stream: str, live: _Live, event: Drafted | Verified | Finished | Failed
    ) -> None:
        """A sink must not raise. One that does loses its own stream, not the engine."""
        try:
            live.sink(event)
        except Exception:
            logger.exception(
                "a stream's events could not be delivered", extra={"fields": live.log_fields}
            )
            if stream in self._live:
                self._supervisor.send(frames.Cancel(stream))
                self._forget(stream)

    def _accepted(self, frame: frames.Accepted) -> None:
        live = self._live.get(frame.stream)
        if live is None or live.admitted.done():
            return
        # With its seed the stream can be repeated, and so continued.
        sampling = msgspec.structs.replace(live.start.sampling, seed=frame.seed)
        live.start = msgspec.structs.replace(live.start, sampling=sampling)
        live.counts = TokenCounts(prompt=frame.prompt_tokens)
        live.admitted.set_result(Admission(prompt_tokens=frame.prompt_tokens, seed=frame.seed))

    def _rejected(self, frame: frames.Rejected) -> None:
        live = self._forget(frame.stream)
        if live is None:
            return
        if not live.admitted.done():
            known = frame.code in ErrorCode.__members__.values()
            code = ErrorCode(frame.code) if known else ErrorCode.INTERNAL
            live.admitted.set_exception(RequestError(code, frame.message, frame.param))
        else:
            message = f"the restarted engine cannot continue this stream: {frame.message}"
            self._tell(frame.stream, live, Failed(ErrorCode.ENGINE_FAILED, message))

    def _end_cancelled(self, stream: str) -> None:
        """End it here, where no engine does."""
        live = self._forget(stream)
        if live is None:
            return
        if live.admitted.done():
            counts = msgspec.structs.replace(live.counts, completion=len(live.committed))
            self._tell(stream, live, Finished(FinishReason.CANCELLED, counts))
        else:
            live.admitted.set_exception(BackendError("cancelled before it began", retryable=True))

    def _give_up(self, stream: str, live: _Live, error: BackendError) -> None:
        """Whoever waits for its admission, or else its sink, is told."""
        if live.admitted.done():
            self._tell(stream, live, Failed(error.code, error.message, error.retryable))
        else:
            live.admitted.set_exception(error)


@lru_cache(maxsize=1)
def _dialect_of(template: str, opening: str) -> Dialect:
    return dialect_of(template, opening)


def _streams(count: int) -> str:
    return "1 stream" if count == 1 else f"{count} streams"
