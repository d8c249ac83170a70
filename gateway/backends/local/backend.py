"""Tokens from an engine of our own, in another process.

The process is restarted when it dies. Every stream it had is then continued from its committed
tokens with its seed, and says the same as if nothing had happened: readers see one retraction of
the tail, at most, and a pause.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING, assert_never

import msgspec

from engine import frames
from gateway.backends.base import (
    Admission,
    Drafted,
    Failed,
    Finished,
    ModelInfo,
    Sink,
    TokenCounts,
    Verified,
)
from gateway.backends.local.process import Step
from gateway.backends.local.supervisor import RestartPolicy, Supervisor
from gateway.errors import BackendError
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
LARGEST_INTEGER = 2**53 - 1
"""Larger ones have no place in a request; beyond 64 bits MessagePack has no form for them."""

MAX_CRASHES = 3
"""A stream that was on so many engines when they ended is not continued once more."""


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
        self.crashes = 0
        """Engines that ended while this stream was on them."""

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

    def finish_cancelled(self) -> None:
        """End it here, where no engine can."""
        counts = msgspec.structs.replace(self.counts, completion=len(self.committed))
        self.sink(Finished(FinishReason.CANCELLED, counts))


class LocalBackend:
    """A `Backend` over one engine process at a time, which a `Supervisor` keeps running.

    `worker`: the program to run, with its first arguments; `--socket` and `--config` are added.
    """

    def __init__(
        self,
        config: EngineConfig,
        *,
        on_progress: OnProgress | None = None,
        worker: Sequence[str] = WORKER,
        restarts: RestartPolicy | None = None,
    ) -> None:
        self._live: dict[str, _Live] = {}
        self._supervisor = Supervisor(
            self, worker, msgspec.json.encode(config), restarts or RestartPolicy(), on_progress
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
        self.give_up(
            BackendError("the gateway is shutting down", ErrorCode.SHUTTING_DOWN, retryable=True)
        )

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
            )
        ]

    async def generate(self, stream: str, request: GenerationRequest, sink: Sink) -> Admission:
        if not self.ready:
            raise BackendError("the engine is not running; it is being restarted", retryable=True)
        live = _Live(_start_frame(stream, request), sink)
        self._live[stream] = live
        self._supervisor.send(live.start)
        try:
            return await live.admitted
        except asyncio.CancelledError:
            # Nobody waits for it any more: what still comes of it is not delivered.
            if self._live.pop(stream, None) is not None:
                self._supervisor.send(frames.Cancel(stream))
            raise

    def cancel(self, stream: str) -> None:
        live = self._live.get(stream)
        if live is None or live.cancelled:
            return
        live.cancelled = True
        if self.ready:
            self._supervisor.send(frames.Cancel(stream))
        else:
            self._end_cancelled(stream, live)

    def want_drafts(self, stream: str, wanted: bool) -> None:
        live = self._live.get(stream)
        if live is not None:
            live.start = msgspec.structs.replace(live.start, want_drafts=wanted)
            if self.ready:
                self._supervisor.send(frames.WantDrafts(stream, wanted))

    def engine_ready(self) -> None:
        """Every stream of an engine that ended goes on where its committed tokens end."""
        for live in self._live.values():
            self._supervisor.send(live.continued())
        if self._live:
            logger.info("%s continued", _streams(len(self._live)))

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

    def engine_lost(self) -> None:
        """What it had drafted is gone with it. Streams wait for the next one."""
        for stream, live in list(self._live.items()):
            if live.tail:
                live.tail = ""
                live.sink(Drafted("", cause=Cause.ENGINE_RESTART))
            live.crashes += 1
            if live.cancelled:
                self._end_cancelled(stream, live)
            elif live.crashes == MAX_CRASHES:
                del self._live[stream]
                # It may be what the engines fail on: without it the others can go on.
                message = f"{MAX_CRASHES} engines ended while this stream was on them"
                _end(live, BackendError(message, ErrorCode.ENGINE_FAILED))

    def give_up(self, error: BackendError) -> None:
        """Every stream ends with `error`."""
        streams, self._live = self._live, {}
        for live in streams.values():
            _end(live, error)

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
                live.counts = event.counts or live.counts
            case Finished() | Failed():
                del self._live[stream]
            case _:
                assert_never(event)
        live.sink(event)

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
        live = self._live.pop(frame.stream, None)
        if live is None:
            return
        if not live.admitted.done():
            known = frame.code in ErrorCode.__members__.values()
            code = ErrorCode(frame.code) if known else ErrorCode.INTERNAL
            live.admitted.set_exception(RequestError(code, frame.message, frame.param))
        else:
            message = f"the restarted engine cannot continue this stream: {frame.message}"
            live.sink(Failed(ErrorCode.ENGINE_FAILED, message))

    def _end_cancelled(self, stream: str, live: _Live) -> None:
        if self._live.pop(stream, None) is None:
            return
        if live.admitted.done():
            live.finish_cancelled()
        else:
            live.admitted.set_exception(BackendError("cancelled before it began", retryable=True))


def _end(live: _Live, error: BackendError) -> None:
    """Whoever waits for its admission, or else its sink, is told."""
    if live.admitted.done():
        live.sink(Failed(error.code, error.message, error.retryable))
    else:
        live.admitted.set_exception(error)


def _streams(count: int) -> str:
    return "1 stream" if count == 1 else f"{count} streams"


def _start_frame(stream: str, request: GenerationRequest) -> frames.Start:
    """Raises `RequestError` for what only the engine's wire is stricter about."""
    _require_small_integers("max_tokens", [request.max_tokens])
    _require_small_integers("top_k", [request.top_k or 0])
    _require_small_integers("stop_token_ids", request.stop_token_ids)
    messages = request.messages
    sampling = frames.SamplingParams(
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        min_p=request.min_p,
        seed=request.seed,
        stop=request.stop,
        stop_token_ids=request.stop_token_ids,
        ignore_eos=request.ignore_eos,
        frequency_penalty=request.frequency_penalty,
        presence_penalty=request.presence_penalty,
        repetition_penalty=request.repetition_penalty,
        logit_bias=_token_biases(request.logit_bias),
        logprobs="logprobs" in request.include,
    )
    return frames.Start(
        stream=stream,
        prompt=request.prompt,
        messages=None
        if messages is None
        else [frames.ChatMessage(message.role, message.content) for message in messages],
        sampling=sampling,
        drafter=request.draft.drafter,
        draft_length=request.draft.length,
        prediction=request.prediction,
        priority=request.priority,
        want_drafts=False,
        committed=[],
        committed_chars=0,
    )


def _require_small_integers(param: str, values: Sequence[int]) -> None:
    if max(values, default=0) > LARGEST_INTEGER:
        raise RequestError(
            ErrorCode.INVALID_VALUE, f"{param}: a number is over {LARGEST_INTEGER}", param
        )


def _token_biases(biases: dict[str, float]) -> dict[int, float]:
    for key in biases:
        if not (key.isascii() and key.isdecimal() and len(key) <= len(str(LARGEST_INTEGER))):
            raise RequestError(
                ErrorCode.INVALID_VALUE,
                f"logit_bias: {key[:40]!r} is not a token id; keys are token ids in decimal",
                "logit_bias",
            )
    return {int(key): bias for key, bias in biases.items()}
