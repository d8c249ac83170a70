"""What an engine said about one prompt, and when: the matter that policies are compared on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from benchmarks.drafters.prompts import prompts
from engine.config import EngineConfig
from engine.engine import Engine
from engine.frames import ChatMessage, Start, Step
from engine.sampling.params import SamplingParams
from gateway.backends.base import BackendEvent, Drafted

if TYPE_CHECKING:
    from pathlib import Path

SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


class Timed(NamedTuple):
    at: float
    """Seconds since the request."""
    event: BackendEvent


class Recording(NamedTuple):
    kind: str
    prompt: str
    events: list[Timed]


def engine(verify_delay_ms: float, threads: int | None) -> Engine:
    """The embedded model as it is served by default."""
    settings: dict[str, Any] = {"verify_delay_ms": verify_delay_ms, "threads": threads}
    return Engine(msgspec.convert(settings, EngineConfig), lambda phase, fraction: None)


def record(
    on: Engine, kind: str, *, seeds: range, max_tokens: int, temperature: float | None
) -> list[Recording]:
    """Answers to one kind of prompts, one stream at a time; `temperature` None: the model's own.

    Each seed takes the next prompt of the kind; with more seeds than prompts they come again.
    """
    texts = prompts(kind)
    # The first step of an engine is not like the others.
    _stream(on, texts[0], seeds.start, 8, temperature)
    return [
        Recording(kind, text, _stream(on, text, seed, max_tokens, temperature))
        for seed in seeds
        for text in (texts[seed % len(texts)],)
    ]


def overconfident(recording: Recording) -> Recording:
    """The same with every token's chance claimed as its fourth root: 0.5 becomes 0.84."""
    return recording._replace(
        events=[Timed(at, _overconfident(event)) for at, event in recording.events]
    )


def _overconfident(event: BackendEvent) -> BackendEvent:
    if not isinstance(event, Drafted):
        return event
    tokens = [
        token
        if token.confidence is None
        else msgspec.structs.replace(token, confidence=token.confidence**0.25)
        for token in event.tokens
    ]
    return msgspec.structs.replace(event, tokens=tokens)


def write_trace(recording: Recording, path: Path) -> None:
    """As the scripted backend reads it (gateway/backends/scripted.py)."""
    before = 0.0
    lines: list[bytes] = []
    for at, event in recording.events:
        fields = {"after_ms": round((at - before) * 1000, 1), **msgspec.to_builtins(event)}
        lines.append(msgspec.json.encode(fields) + b"\n")
        before = at
    path.write_bytes(b"".join(lines))


def _stream(
    on: Engine, prompt: str, seed: int, max_tokens: int, temperature: float | None
) -> list[Timed]:
    start = Start(
        stream="s",
        prompt=None,
        messages=[ChatMessage("system", SYSTEM), ChatMessage("user", prompt)],
        sampling=SamplingParams(max_tokens=max_tokens, temperature=temperature, seed=seed),
        drafter=None,
        draft_length=None,
        prediction=None,
        priority=0,
        want_drafts=True,
        committed=[],
        committed_chars=0,
    )
    events: list[Timed] = []
    begun = time.perf_counter()

    def take(step: Step) -> None:
        at = time.perf_counter() - begun
        events.extend(Timed(at, _gateway_event(event)) for _, event in step.events)

    on.add(start)
    while on.has_work:
        on.step(take)
    return events


def _gateway_event(event: object) -> BackendEvent:
    """The same names and fields on both sides of the process boundary."""
    return msgspec.convert(msgspec.to_builtins(event), BackendEvent)
