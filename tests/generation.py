"""Run an engine to its end and write down what every stream said.

While it runs, everything an engine promises about its events is checked; see `Transcript`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_never

import msgspec

from engine.config import EngineConfig
from engine.engine import Engine
from engine.frames import (
    ChatMessage,
    Drafted,
    Failed,
    Finished,
    Start,
    Step,
    Token,
    TokenCounts,
    Verified,
)
from engine.sampling.params import SamplingParams

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from engine.scheduling.scheduler import Scheduler
    from engine.text.stream import TextStream


def engine_on(model: Path | str, **settings: Any) -> Engine:
    """An engine with one thread and no adaptation, unless `settings` say otherwise.

    Few blocks: all of them are looked at after every step.
    """
    usual: dict[str, Any] = {
        "model": str(model),
        "threads": 1,
        "adaptive_draft": False,
        "kv_blocks": 400,
    }
    return Engine(msgspec.convert(usual | settings, EngineConfig), _quiet)


def _quiet(phase: str, fraction: float | None) -> None:
    """Progress nobody watches."""


def request(
    stream: str,
    prompt: str | list[ChatMessage],
    *,
    drafter: str | None = None,
    draft_length: int | None = None,
    prediction: str | None = None,
    priority: int = 0,
    want_drafts: bool = True,
    committed: list[int] | None = None,
    committed_chars: int = 0,
    salt: bytes = b"",
    **sampling: Any,
) -> Start:
    return Start(
        stream=stream,
        prompt=prompt if isinstance(prompt, str) else None,
        messages=None if isinstance(prompt, str) else prompt,
        sampling=SamplingParams(**sampling),
        drafter=drafter,
        draft_length=draft_length,
        prediction=prediction,
        priority=priority,
        want_drafts=want_drafts,
        committed=committed or [],
        committed_chars=committed_chars,
        salt=salt,
    )


class Transcript:
    """What one stream said. Raises AssertionError when an event contradicts those before it."""

    def __init__(self) -> None:
        self.text = ""
        self.tail = ""
        self.tokens: list[Token] = []
        self.reason: str | None = None
        self.counts = TokenCounts()
        self.drafts = 0
        """Events with a draft in them."""
        self.retractions: list[str] = []
        """Causes."""
        self.cuts: list[int] = [0]
        """Numbers of tokens that were all there was when a step had been sent."""

    @property
    def ids(self) -> list[int]:
        return [token.id for token in self.tokens]

    def take(self, event: Drafted | Verified | Finished | Failed) -> None:
        assert self.reason is None, "nothing comes after the end"
        match event:
            case Drafted():
                assert sum(token.n for token in event.tokens) == len(event.tail)
                assert event.tail.startswith(self.tail), "a draft retracts nothing"
                self.tail = event.tail
                self.drafts += 1
            case Verified():
                assert sum(token.n for token in event.tokens) == len(event.text)
                kept = (event.text + event.tail).startswith(self.tail)
                assert kept == (event.cause is None), (
                    "what vanishes has a cause, else there is none"
                )
                if event.cause is not None:
                    self.retractions.append(event.cause)
                self.text += event.text
                self.tail = event.tail
                self.tokens += event.tokens
            case Finished():
                assert self.tail == "", "a stream ends without a tail"
                self.reason, self.counts = event.reason, event.counts
            case Failed():
                raise AssertionError(f"the stream failed: {event.message}")
            case _:
                assert_never(event)


class Generation:
    """One engine and the streams started on it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.streams: dict[str, Transcript] = {}
        self.steps = 0

    def start(self, *starts: Start) -> None:
        for start in starts:
            self.streams[start.stream] = Transcript()
            self.engine.add(start)

    def step(self) -> None:
        self.engine.step(self._take)
        self.engine.check_integrity()
        self.steps += 1

    def run(self, arrivals: Mapping[int, Iterable[Start]] | None = None) -> dict[str, Transcript]:
        """Until nothing is left to do; `arrivals` enter after so many steps of this call."""
        left = {step: list(starts) for step, starts in (arrivals or {}).items()}
        number = 0
        while self.engine.has_work or left:
            self.start(*left.pop(number, []))
            if self.engine.has_work:
                self.step()
            number += 1
        assert all(transcript.reason for transcript in self.streams.values())
        return self.streams

    def _take(self, step: Step) -> None:
        assert step.events, "an empty step is not sent"
        for stream, event in step.events:
            self.streams[stream].take(event)
        for stream in {stream for stream, _ in step.events}:
            transcript = self.streams[stream]
            if transcript.reason is None:
                transcript.cuts.append(len(transcript.tokens))


def generate(engine: Engine, *starts: Start) -> dict[str, Transcript]:
    """All of them at once, to the end."""
    generation = Generation(engine)
    generation.start(*starts)
    return generation.run()


def scheduler_of(engine: Engine) -> Scheduler:
    """To see what cannot be seen from outside: who was preempted, which blocks are free."""
    return engine._scheduler  # pyright: ignore[reportPrivateUsage]


def text_of(engine: Engine, stream: str) -> TextStream:
    """To disturb one stream's text."""
    return engine._live[stream].text  # pyright: ignore[reportPrivateUsage]
