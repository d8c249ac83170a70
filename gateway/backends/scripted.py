"""A source of tokens that plays trace files: for tests, and for trying clients without a model.

A trace is a JSON Lines file, or a JSON file with one list, of steps: a `BackendEvent` of
`gateway/backends/base.py` plus `after_ms`, the time since the step before it. Each file is a model
named after it. A trace says the same whatever the request asks for: sampling parameters, stop
strings and `max_tokens` are not acted on; only the length of the prompt is.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

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
from gateway.errors import ConfigError
from gateway.parts import Dialect
from protocol.codec import MALFORMED
from protocol.errors import ErrorCode, RequestError
from protocol.events import FinishReason
from protocol.text import common_prefix_length

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.config import BackendConfig
    from protocol.requests import GenerationRequest

BUILT_IN_TRACES = Path(__file__).parent / "traces"
DIALECT = Dialect(thinks="marked")
"""A trace may hold calls as `<tool_call>{…}</tool_call>`, and begin with `<think>`."""
CONTEXT_LENGTH = 4096
"""In words: the scripted backend has no tokenizer."""

Trace: TypeAlias = "list[Step]"


class Step(msgspec.Struct, frozen=True):
    after_s: float
    event: BackendEvent


class _Playing:
    """One generation under way."""

    def __init__(self, sink: Sink, prompt_tokens: int, *, wants_drafts: bool) -> None:
        self.sink = sink
        self.prompt_tokens = prompt_tokens
        self.wants_drafts = wants_drafts
        self.tail = ""
        """As the sink was told last: a beginning of the trace's own tail."""
        self.committed_tokens = 0
        self.steps = 0
        self.task: asyncio.Task[None] | None = None

    def counts(self) -> TokenCounts:
        return TokenCounts(
            prompt=self.prompt_tokens, completion=self.committed_tokens, steps=self.steps
        )

    def drafted(self, event: Drafted) -> Drafted | None:
        """What of it is to be said. Without a reader for drafts only this: that text which one was
        shown before is gone.
        """
        if self.wants_drafts:
            return event
        same = common_prefix_length(self.tail, event.tail)
        return Drafted(self.tail[:same], cause=event.cause) if same < len(self.tail) else None


class ScriptedBackend:
    """`speed` divides every wait; `repeat` plays a trace so many times in one stream."""

    def __init__(self, traces: Mapping[str, Trace], *, speed: float = 1.0, repeat: int = 1) -> None:
        if not traces:
            raise ConfigError("backend.traces: there is no trace to play")
        self._traces = dict(traces)
        self._speed = speed
        self._repeat = repeat
        self._playing: dict[str, _Playing] = {}
        self._ready = False

    @classmethod
    def from_config(cls, config: BackendConfig) -> ScriptedBackend:
        """Raises ConfigError when a trace cannot be read."""
        path = BUILT_IN_TRACES if config.traces is None else Path(config.traces)
        return cls(load_traces(path), speed=config.speed, repeat=config.repeat)

    @property
    def ready(self) -> bool:
        return self._ready

    async def start(self) -> None:
        self._ready = True

    async def stop(self) -> None:
        self._ready = False
        tasks = [playing.task for playing in self._playing.values() if playing.task is not None]
        self._playing.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def places(self) -> int | None:
        return None

    def models(self) -> list[ModelInfo]:
        return [
            ModelInfo(
                id=name, context_length=CONTEXT_LENGTH, drafters=["scripted"], dialect=DIALECT
            )
            for name in self._traces
        ]

    def load(self) -> Load:
        return Load(running=len(self._playing))

    async def generate(
        self,
        stream: str,
        request: GenerationRequest,
        sink: Sink,
        *,
        want_drafts: bool = False,
        tenant: str = "",
    ) -> Admission:
        del tenant  # nothing is kept of a stream
        prompt_tokens = _prompt_words(request)
        if prompt_tokens >= CONTEXT_LENGTH:
            raise RequestError(
                ErrorCode.CONTEXT_EXCEEDED,
                f"the prompt has {prompt_tokens} tokens; the context holds {CONTEXT_LENGTH}, of "
                "which at least one is for the answer",
                "prompt" if request.prompt is not None else "messages",
            )
        assert request.model is not None
        playing = _Playing(sink, prompt_tokens, wants_drafts=want_drafts)
        self._playing[stream] = playing
        playing.task = asyncio.create_task(self._play(stream, self._traces[request.model]))
        return Admission(prompt_tokens=prompt_tokens, seed=request.seed)

    def cancel(self, stream: str) -> None:
        playing = self._playing.pop(stream, None)
        if playing is not None:
            if playing.task is not None:
                playing.task.cancel()
            playing.sink(Finished(FinishReason.CANCELLED, playing.counts()))

    def want_drafts(self, stream: str, wanted: bool) -> None:
        if stream in self._playing:
            self._playing[stream].wants_drafts = wanted

    async def _play(self, stream: str, trace: Trace) -> None:
        playing = self._playing[stream]
        for round_ in range(1, self._repeat + 1):
            for step in trace:
                await asyncio.sleep(step.after_s / self._speed)
                event = step.event
                match event:
                    case Drafted():
                        event = playing.drafted(event)
                        if event is None:
                            continue
                        playing.tail = event.tail
                    case Verified(tail=tail, tokens=tokens):
                        playing.tail = tail
                        playing.committed_tokens += len(tokens)
                        playing.steps += 1
                    case Finished() if round_ < self._repeat:
                        continue
                    case Finished(reason=reason, counts=counts):
                        self._playing.pop(stream, None)
                        playing.sink(Finished(reason, self._total(counts, playing)))
                        return
                    case Failed():
                        self._playing.pop(stream, None)
                        playing.sink(event)
                        return
                    case _:
                        pass
                playing.sink(event)
        self._playing.pop(stream, None)
        playing.sink(Finished(FinishReason.STOP, playing.counts()))

    def _total(self, counts: TokenCounts, playing: _Playing) -> TokenCounts:
        """The trace's own counts, for every round; the prompt's come from the request."""
        return TokenCounts(
            prompt=playing.prompt_tokens,
            completion=counts.completion * self._repeat,
            drafted=counts.drafted * self._repeat,
            accepted=counts.accepted * self._repeat,
            steps=counts.steps * self._repeat,
        )


def load_traces(path: Path) -> dict[str, Trace]:
    """Traces by model name: one file, or all `.json` and `.jsonl` files of a folder.

    Raises ConfigError naming file and step.
    """
    if not path.is_dir():
        return {path.stem: _load_trace(path)}
    files = sorted(file for file in path.iterdir() if file.suffix in (".json", ".jsonl"))
    return {file.stem: _load_trace(file) for file in files}


def _load_trace(path: Path) -> Trace:
    try:
        data = path.read_bytes()
        raw: list[dict[str, Any]] = (
            msgspec.json.decode(data, type=list[dict[str, Any]])
            if path.suffix == ".json"
            else msgspec.json.Decoder(dict[str, Any]).decode_lines(data)
        )
    except OSError as error:
        raise ConfigError(f"backend.traces: cannot read {path}: {error.strerror}") from error
    except MALFORMED as error:
        raise ConfigError(f"backend.traces: {path}: {error}") from error
    return [_step(path, number, fields) for number, fields in enumerate(raw, start=1)]


def _step(path: Path, number: int, fields: dict[str, Any]) -> Step:
    event = {name: value for name, value in fields.items() if name != "after_ms"}
    try:
        after_ms = msgspec.convert(fields.get("after_ms", 0), float)
        return Step(max(0.0, after_ms / 1000), msgspec.convert(event, BackendEvent))
    except msgspec.ValidationError as error:
        raise ConfigError(f"backend.traces: {path}, step {number}: {error}") from error


def _prompt_words(request: GenerationRequest) -> int:
    if request.prompt is not None:
        return len(request.prompt.split())
    return sum(len(message.content.split()) for message in request.messages or [])
