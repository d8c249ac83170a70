"""Tokens from an engine of our own, in another process.

The process is restarted when it dies. Every stream it had is then continued from its committed
tokens with its seed, and says the same as if nothing had happened: readers see one retraction of
the tail, at most, and a pause.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias, assert_never

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
    TokenText,
    Verified,
)
from gateway.backends.supervisor import (
    EngineLinkError,
    EngineProcess,
    Framing,
    RestartBudget,
    RestartPolicy,
)
from gateway.errors import BackendError
from protocol.errors import ErrorCode, RequestError
from protocol.events import Cause, FinishReason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from protocol.requests import GenerationRequest

logger = logging.getLogger("wetink.engine")

WORKER = (sys.executable, "-m", "engine.worker")
LARGEST_INTEGER = 2**53 - 1
"""Larger ones have no place in a request; beyond 64 bits MessagePack has no form for them."""
FRAMING = Framing(frames.LENGTH_PREFIX_BYTES, frames.MAX_FRAME_BYTES)

OnProgress: TypeAlias = Callable[[str, float | None], None]
"""What the engine is doing before it is ready, and 0…1 where it can be told."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(frames.FromEngine)

MAX_CRASHES = 3
"""A stream that was on so many engines when they ended is not continued once more."""


class LocalConfig(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What the engine is told at its start; None leaves a setting to the engine, which also checks
    them. Meaning and defaults: `EngineConfig` in engine/config.py.
    """

    model: str | None = None
    draft_model: str | None = None
    draft_head: str | None = None
    drafter: str | None = None
    draft_length: int | None = None
    adaptive_draft: bool | None = None
    dtype: str | None = None
    mode: str | None = None
    threads: int | None = None
    context_length: int | None = None
    max_sequences: int | None = None
    max_waiting: int | None = None
    max_step_tokens: int | None = None
    block_size: int | None = None
    kv_blocks: int | None = None
    kv_memory_mib: int | None = None
    prefix_cache: bool | None = None


class _Live:
    """A stream under way: what is needed to continue it on another engine."""

    def __init__(self, start: frames.Start, sink: Sink) -> None:
        self.start = start
        self.sink = sink
        self.admitted: asyncio.Future[Admission] = asyncio.get_running_loop().create_future()
        self.prompt_tokens = 0
        self.committed: list[int] = []
        self.committed_chars = 0
        self.tail = ""
        self.cancelled = False
        self.crashes = 0
        """Engines that ended while this stream was on them."""

    def continued(self) -> frames.Start:
        return msgspec.structs.replace(
            self.start, committed=self.committed, committed_chars=self.committed_chars
        )

    def finish_cancelled(self) -> None:
        """End it here, where no engine can."""
        counts = TokenCounts(prompt=self.prompt_tokens, completion=len(self.committed))
        self.sink(Finished(FinishReason.CANCELLED, counts))


class LocalBackend:
    """A `Backend` over one engine process at a time.

    `worker`: the program to run, with its first arguments; `--socket` and `--config` are added.
    """

    def __init__(
        self,
        config: LocalConfig,
        *,
        on_progress: OnProgress | None = None,
        worker: Sequence[str] = WORKER,
        restarts: RestartPolicy | None = None,
    ) -> None:
        self._config = msgspec.json.encode(config)
        self._on_progress = on_progress
        self._worker = worker
        self._budget = RestartBudget(restarts or RestartPolicy())
        self._process: EngineProcess | None = None
        self._info: frames.Ready | None = None
        self._ready = False
        self._last_words: frames.Fatal | None = None
        self._live: dict[str, _Live] = {}
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        return self._ready

    @property
    def engine_pid(self) -> int | None:
        """Process id of the present engine."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Raises `BackendError` when the engine cannot start; it is not tried again then."""
        if self._supervisor is not None:
            raise RuntimeError("a backend is started once; a second engine would double its text")
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._supervisor = asyncio.create_task(self._supervise(started))
        await started

    async def stop(self) -> None:
        """End the engine, in bounded time; streams still live end with `shutting_down`."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
        self._fail_all(ErrorCode.SHUTTING_DOWN, "the gateway is shutting down", retryable=True)

    def models(self) -> list[ModelInfo]:
        info = self._info
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
        if not self._ready:
            raise BackendError("the engine is not running; it is being restarted", retryable=True)
        live = _Live(_start_frame(stream, request), sink)
        self._live[stream] = live
        self._send(live.start)
        try:
            return await live.admitted
        except asyncio.CancelledError:
            # Nobody waits for it any more: what still comes of it is not delivered.
            if self._live.pop(stream, None) is not None:
                self._send(frames.Cancel(stream))
            raise

    def cancel(self, stream: str) -> None:
        live = self._live.get(stream)
        if live is None or live.cancelled:
            return
        live.cancelled = True
        if self._ready:
            self._send(frames.Cancel(stream))
        else:
            self._end_cancelled(stream, live)

    def want_drafts(self, stream: str, wanted: bool) -> None:
        live = self._live.get(stream)
        if live is not None:
            live.start = msgspec.structs.replace(live.start, want_drafts=wanted)
            if self._ready:
                self._send(frames.WantDrafts(stream, wanted))

    async def _supervise(self, started: asyncio.Future[None]) -> None:
        """Whatever goes wrong in here, nobody is left waiting for it."""
        try:
            await self._keep_running(started)
        except Exception as error:
            logger.exception("the engine's supervisor failed")
            message = f"the engine's supervisor failed: {error}"
            if not started.done():
                started.set_exception(BackendError(message, ErrorCode.INTERNAL))
            self._fail_all(ErrorCode.INTERNAL, message, retryable=False)

    async def _keep_running(self, started: asyncio.Future[None]) -> None:
        """Restart the engine when it ends; a first start that fails is reported, not repeated."""
        clock = asyncio.get_running_loop().time
        while True:
            reason = await self._run_engine(started)
            if not started.done():
                started.set_exception(BackendError(reason, ErrorCode.ENGINE_FAILED))
                return
            logger.error("the engine ended: %s", reason)
            delay = self._budget.take(clock())
            if delay is None:
                self._fail_all(
                    ErrorCode.ENGINE_FAILED, f"the engine keeps failing: {reason}", retryable=False
                )
                # Without the streams, one of which may have been what it failed on.
                await asyncio.sleep(self._budget.exhausted_for(clock()))
                delay = self._budget.take(clock()) or 0.0
            await asyncio.sleep(delay)

    async def _run_engine(self, started: asyncio.Future[None]) -> str:
        """One life of an engine; returns why it ended."""
        self._last_words = None
        try:
            process = await EngineProcess.launch(self._worker, self._config, FRAMING)
        except EngineLinkError as error:
            return str(error)
        self._process = process
        fault: str | None = None
        try:
            async for payload in process.frames():
                was_ready = self._ready
                self._receive(_decoder.decode(payload))
                if self._ready and not started.done():
                    started.set_result(None)
                elif self._ready and not was_ready:
                    logger.info("the engine is back, %s continued", _streams(len(self._live)))
        except (EngineLinkError, msgspec.MsgspecError) as error:
            fault = str(error)
        finally:
            self._process = None
            self._ready = False
            self._interrupt()
            status = await process.end()
        if self._last_words is not None:
            return self._last_words.message
        return fault or f"its process ended with status {status}"

    def _receive(self, frame: frames.FromEngine) -> None:
        match frame:
            case frames.Step():
                for event in frame.events:
                    self._deliver(event)
            case frames.Accepted():
                self._accepted(frame)
            case frames.Rejected():
                self._rejected(frame)
            case frames.Loading():
                if self._on_progress is not None:
                    self._on_progress(frame.phase, frame.fraction)
            case frames.Ready():
                self._info = frame
                self._ready = True
                for live in self._live.values():
                    self._send(live.continued())
            case frames.Fatal():
                self._last_words = frame
            case _:
                assert_never(frame)

    def _deliver(self, event: frames.EngineEvent) -> None:
        live = self._live.get(event.stream)
        if live is None:
            return
        match event:
            case frames.Drafted():
                live.tail = event.tail
                live.sink(Drafted(event.tail, _tokens(event.tokens)))
            case frames.Verified():
                live.tail = event.tail
                live.committed.extend(token.id for token in event.tokens)
                live.committed_chars += len(event.text)
                live.sink(Verified(event.text, event.tail, event.cause, _tokens(event.tokens)))
            case frames.Finished():
                del self._live[event.stream]
                live.sink(Finished(event.reason, _counts(event.counts)))
            case frames.StreamFailed():
                del self._live[event.stream]
                live.sink(Failed(event.code, event.message, event.retryable))
            case _:
                assert_never(event)

    def _accepted(self, frame: frames.Accepted) -> None:
        live = self._live.get(frame.stream)
        if live is None or live.admitted.done():
            return
        # With its seed the stream can be repeated, and so continued.
        sampling = msgspec.structs.replace(live.start.sampling, seed=frame.seed)
        live.start = msgspec.structs.replace(live.start, sampling=sampling)
        live.prompt_tokens = frame.prompt_tokens
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

    def _interrupt(self) -> None:
        """The engine is gone: what it drafted with it. Streams wait for the next one."""
        for stream, live in list(self._live.items()):
            if live.tail:
                live.tail = ""
                live.sink(Drafted("", cause=Cause.ENGINE_RESTART))
            live.crashes += 1
            if live.cancelled:
                self._end_cancelled(stream, live)
            elif live.crashes == MAX_CRASHES:
                self._fail(stream, live)

    def _fail(self, stream: str, live: _Live) -> None:
        """It may be what the engines fail on: without it the others can go on."""
        del self._live[stream]
        message = f"{MAX_CRASHES} engines ended while this stream was on them"
        if live.admitted.done():
            live.sink(Failed(ErrorCode.ENGINE_FAILED, message))
        else:
            live.admitted.set_exception(BackendError(message, ErrorCode.ENGINE_FAILED))

    def _end_cancelled(self, stream: str, live: _Live) -> None:
        if self._live.pop(stream, None) is None:
            return
        if live.admitted.done():
            live.finish_cancelled()
        else:
            live.admitted.set_exception(BackendError("cancelled before it began", retryable=True))

    def _fail_all(self, code: ErrorCode, message: str, *, retryable: bool) -> None:
        streams, self._live = self._live, {}
        for live in streams.values():
            if live.admitted.done():
                live.sink(Failed(code, message, retryable))
            else:
                live.admitted.set_exception(BackendError(message, code, retryable=retryable))

    def _send(self, frame: frames.ToEngine) -> None:
        if self._process is not None:
            self._process.send(_encoder.encode(frame))


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
                f"logit_bias: {key[:40]!r} is no token id; keys are token ids in decimal",
                "logit_bias",
            )
    return {int(key): bias for key, bias in biases.items()}


def _tokens(tokens: list[frames.TokenText]) -> list[TokenText]:
    return [TokenText(token.id, token.n, token.logprob, token.confidence) for token in tokens]


def _counts(counts: frames.TokenCounts) -> TokenCounts:
    return TokenCounts(
        prompt=counts.prompt,
        cached_prompt=counts.cached_prompt,
        completion=counts.completion,
        drafted=counts.drafted,
        accepted=counts.accepted,
        steps=counts.steps,
    )
