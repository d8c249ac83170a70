"""Streams through the real engine, so many at a time, and what was seen of them."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.drafters.tally import Tally
from engine.frames import ChatMessage, Drafted, Failed, Finished, Start, Step, Verified
from engine.sampling.params import SamplingParams

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.engine import Engine

SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


class Task(NamedTuple):
    prompt: str
    prediction: str | None
    temperature: float
    seed: int
    max_tokens: int


class Speculation(NamedTuple):
    drafter: str
    """"none": no speculation."""
    length: int


class _Reader:
    """One running stream."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.text = ""
        self.drafts: list[tuple[int, list[tuple[int, float]]]] = []
        """Each with the place where it began."""


class Run:
    """Some tasks on one engine with one way to speculate; `tally` counts."""

    def __init__(self, engine: Engine, how: Speculation) -> None:
        self._engine = engine
        self._how = how
        self._live: dict[str, _Reader] = {}
        self.tally = Tally()
        self.texts: dict[str, str] = {}
        """By number of the task, once it is over."""

    def go(self, tasks: Sequence[Task], width: int) -> Run:
        """`width` of them at a time. A step counts where nobody's prompt is read and no place is
        free, so that the last tasks running out do not. Nothing is copied from earlier runs, which
        may have had the same tasks.
        """
        self._engine.forget_streams()
        waiting = deque(enumerate(tasks))
        while waiting or self._live:
            while waiting and len(self._live) < width:
                number, task = waiting.popleft()
                self._begin(str(number), task)
            full = len(self._live) == width and all(r.tokens for r in self._live.values())
            before = sum(len(r.tokens) for r in self._live.values()) if full else 0
            readers = list(self._live.values())
            begun = time.perf_counter()
            self._engine.step(self._take)
            seconds = time.perf_counter() - begun
            if full:
                self.tally.seconds += seconds
                self.tally.sequence_steps += width
                self.tally.tokens += sum(len(r.tokens) for r in readers) - before
        return self

    def _begin(self, stream: str, task: Task) -> None:
        none = self._how.drafter == "none"
        self._live[stream] = _Reader()
        self._engine.add(
            Start(
                stream=stream,
                prompt=None,
                messages=[ChatMessage("system", SYSTEM), ChatMessage("user", task.prompt)],
                sampling=SamplingParams(
                    max_tokens=task.max_tokens,
                    temperature=task.temperature,
                    top_p=1.0,
                    seed=task.seed,
                ),
                drafter=None if none else self._how.drafter,
                draft_length=0 if none else self._how.length,
                prediction=task.prediction,
                priority=0,
                want_drafts=True,
                committed=[],
                committed_chars=0,
            )
        )

    def _take(self, step: Step) -> None:
        for stream, event in step.events:
            reader = self._live[stream]
            match event:
                case Drafted():
                    # Verified tokens held back stand before the draft: their confidence is 1.
                    held = sum(token.confidence == 1.0 for token in event.tokens)
                    draft = [(token.id, token.confidence or 0.0) for token in event.tokens[held:]]
                    reader.drafts.append((len(reader.tokens) + held, draft))
                case Verified():
                    reader.tokens += [token.id for token in event.tokens]
                    reader.text += event.text
                case Finished():
                    self._end(stream, event)
                case Failed():
                    raise RuntimeError(f"a stream failed: {event.message}")

    def _end(self, stream: str, event: Finished) -> None:
        reader = self._live.pop(stream)
        self.texts[stream] = reader.text
        for start, draft in reader.drafts:
            self.tally.judge(draft, reader.tokens[start:], ended=event.reason == "stop")
        self.tally.drafted += event.counts.drafted
        self.tally.accepted += event.counts.accepted
