"""The target writes, many texts at once through our own engine, saved shard by shard."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from engine.errors import EngineError
from engine.frames import ChatMessage, Failed, Finished, Start, Step, Verified
from engine.sampling.params import SamplingParams
from engine.training import documents
from engine.training.documents import Document, Documents

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from engine.engine import Engine

AT_ONCE = 32
"""Streams in one step: as many as an engine runs by default."""


class Assignment(NamedTuple):
    """A text to be written: what is asked (a chat message, or a raw prompt), and how."""

    asked: str
    raw: bool
    temperature: float
    seed: int
    max_tokens: int

    def start(self, stream: str) -> Start:
        messages = None if self.raw else [ChatMessage("user", self.asked)]
        return Start(
            stream=stream,
            prompt=self.asked if self.raw else None,
            messages=messages,
            sampling=SamplingParams(
                max_tokens=self.max_tokens,
                temperature=self.temperature,
                # The model's own defaults would cut the distribution the head has to learn.
                top_p=1.0,
                top_k=0,
                min_p=0.0,
                seed=self.seed,
            ),
            drafter="none",
            draft_length=0,
            prediction=None,
            priority=0,
            want_drafts=False,
            committed=[],
            committed_chars=0,
        )


def write(engine: Engine, assignments: Sequence[Assignment], end: int) -> list[Document]:
    """All of them, in order; `end` is the token put behind an answer that ended by itself.

    Raises EngineError when a stream fails or a prompt does not fit.
    """
    prompts: dict[str, list[int]] = {}
    answers: dict[str, list[int]] = {}
    waiting = list(enumerate(assignments))[::-1]
    running: set[str] = set()

    def take(step: Step) -> None:
        for stream, event in step.events:
            if isinstance(event, Verified):
                answers[stream] += [token.id for token in event.tokens]
            elif isinstance(event, Finished):
                running.discard(stream)
                if event.reason == "stop":
                    answers[stream].append(end)
            elif isinstance(event, Failed):
                raise EngineError(f"text {stream} could not be written: {event.message}")

    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            number, assignment = waiting.pop()
            stream = str(number)
            start = assignment.start(stream)
            encoded = engine.encode(start)
            prompts[stream], answers[stream] = list(encoded.prompt), []
            engine.add(start, encoded)
            running.add(stream)
        engine.step(take)
    return [
        Document(prompts[stream] + answers[stream], len(prompts[stream]))
        for stream in map(str, range(len(assignments)))
    ]


def write_shards(
    engine: Engine,
    folder: Path,
    assignments: Sequence[Assignment],
    *,
    shard: int,
    end: int,
    tell: Callable[[str], None],
) -> Documents:
    """As `write`, saved after every `shard` texts; those that are there already are not written
    again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for first in range(0, len(assignments), shard):
        path = folder / f"{first:06}.npz"
        if not path.is_file():
            texts = write(engine, assignments[first : first + shard], end)
            documents.save(documents.gather(texts), path)
            tell(f"{folder.name}: {min(first + shard, len(assignments))} of {len(assignments)}")
    return documents.gather(_all(folder, len(assignments), shard))


def _all(folder: Path, count: int, shard: int) -> Iterator[Document]:
    for first in range(0, count, shard):
        yield from documents.load(folder / f"{first:06}.npz")
