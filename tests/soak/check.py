"""Runs one combination and compares every stream with its task's reference, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from engine.loading.pull import EMBEDDED_MODEL
from tests.generation import Generation, Transcript, engine_on, generate, scheduler_of
from tests.soak.combination import model_named, task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from engine.engine import Engine
    from engine.frames import Start, Token
    from engine.model.batch import Span
    from engine.scheduling.sequence import Sequence as EngineSequence
    from tests.soak.combination import Combination, Part

WARMING_TOKENS = 30


class Checkpoints(msgspec.Struct, frozen=True):
    """Where the tiny model, its draft model and its draft head are."""

    tiny: Path
    near: Path
    head: Path


class Outcome(msgspec.Struct):
    """Of one combination."""

    differences: list[str]
    """One line per stream that said something else; empty: as it must be."""
    tokens: int = 0
    """Compared."""
    in_company: int = 0
    """Of these, made in steps of more rows than one: what a reference never does."""
    accepted: int = 0
    preemptions: int = 0


class References:
    """Each task alone: draft length 0, fresh cache, one thread. Made when first needed."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints
        self._known: dict[tuple[str, int, int], Transcript] = {}

    def need(self, model: str, tasks: Iterable[int], tokens: int) -> None:
        missing = sorted({t for t in tasks if (model, t, tokens) not in self._known})
        if not missing:
            return
        engine = engine_on(
            self._folder(model),
            **model_named(model).settings | {"threads": 1, "prefix_cache": False},
        )
        for number in missing:
            start = task(model, number, tokens)
            self._known[model, number, tokens] = generate(engine, start)[start.stream]
        engine.close()

    def __getitem__(self, key: tuple[str, int, int]) -> Transcript:
        return self._known[key]

    def engine(self, model: str, **settings: Any) -> Engine:
        """One for a combination, with all drafters that there are for the model."""
        chosen = model_named(model)
        if "model" in chosen.drafters:
            settings |= {"draft_model": str(self._checkpoints.near)}
        if "head" in chosen.drafters and not chosen.embedded:
            settings |= {"draft_head": str(self._checkpoints.head)}
        return engine_on(self._folder(model), **settings)

    def _folder(self, model: str) -> Path | str:
        return EMBEDDED_MODEL if model_named(model).embedded else self._checkpoints.tiny


class _Story:
    """One stream over the engines it lives through."""

    def __init__(self, part: Part, start: Start, reference: Transcript) -> None:
        self.part = part
        self.text = ""
        self.tokens: list[Token] = []
        self.reason: str | None = None
        if part.resumed is not None:
            cut = reference.cuts[int(part.resumed * len(reference.cuts))]
            self.tokens = reference.tokens[:cut]
            self.text = reference.text[: sum(token.n for token in self.tokens)]
        self._start = start
        self.given = len(self.tokens)
        """Tokens that were not generated here."""

    def start(self, prediction: str) -> Start:
        """As the gateway sends it, from the first token on or after a restart."""
        return msgspec.structs.replace(
            self._start,
            drafter=self.part.drafter,
            draft_length=self.part.draft_length,
            priority=self.part.priority,
            prediction=prediction if self.part.predicted else None,
            committed=[token.id for token in self.tokens],
            committed_chars=sum(token.n for token in self.tokens),
        )

    def absorb(self, transcript: Transcript) -> None:
        self.text += transcript.text
        self.tokens = self.tokens + transcript.tokens
        self.reason = transcript.reason

    def difference(self, reference: Transcript) -> str | None:
        if (self.text, self.tokens, self.reason) == (
            reference.text,
            reference.tokens,
            reference.reason,
        ):
            return None
        pairs = enumerate(zip(self.tokens, reference.tokens, strict=False))
        place = next((n for n, (ours, theirs) in pairs if ours != theirs), None)
        return (
            f"{self._start.stream} {self.part}: texts {'agree' * (self.text == reference.text)}"
            f"{'differ' * (self.text != reference.text)}; first other token {place};"
            f" {len(self.tokens)} and {len(reference.tokens)} tokens;"
            f" {self.reason} and {reference.reason}"
        )


class _Rows:
    """Remembers how many rows the last step had."""

    def __init__(self, engine: Engine) -> None:
        self.last = 0
        runner = engine._runner  # pyright: ignore[reportPrivateUsage]
        run = runner.run

        def counted(spans: list[Span]) -> Any:
            self.last = sum(len(span.tokens) for span in spans)
            return run(spans)

        runner.run = counted


def check(
    combination: Combination,
    references: References,
    prepare: Callable[[Engine], None] = lambda engine: None,
) -> Outcome:
    """Run it and compare. `prepare` may break an engine, to see that it shows."""
    name, tokens = combination.model, combination.tokens
    references.need(name, (part.task for part in combination.parts), tokens)
    outcome = Outcome([])
    stories: dict[str, _Story] = {}
    for number, part in enumerate(combination.parts):
        stream = f"{combination.number}.{number} task {part.task}"
        start = msgspec.structs.replace(task(name, part.task, tokens), stream=stream)
        stories[stream] = _Story(part, start, references[name, part.task, tokens])
    threads = [combination.settings["threads"]]
    if combination.dies is not None:
        threads.append(combination.threads_afterwards)
    for life, count in enumerate(threads):
        engine = references.engine(name, **combination.settings | {"threads": count})
        prepare(engine)
        dies = combination.dies if life + 1 < len(threads) else None
        _live(engine, combination, references, stories, dies, outcome)
        engine.close()
    for story in stories.values():
        reference = references[name, story.part.task, tokens]
        outcome.tokens += len(story.tokens) - story.given
        difference = story.difference(reference)
        if difference is not None:
            outcome.differences.append(difference)
    return outcome


def _live(
    engine: Engine,
    combination: Combination,
    references: References,
    stories: dict[str, _Story],
    dies: int | None,
    outcome: Outcome,
) -> None:
    """One engine from its start to its end: all streams done, or `dies` steps made."""
    predictions = {
        stream: _half_right(references[combination.model, story.part.task, combination.tokens])
        for stream, story in stories.items()
    }
    waiting = {
        stream: story.start(predictions[stream])
        for stream, story in stories.items()
        if story.reason is None
    }
    if combination.warm:
        generate(engine, *_warming(waiting.values()))
    rows = _Rows(engine)
    generation = Generation(engine)
    seen: dict[str, EngineSequence] = {}
    step = 0
    while (waiting or engine.has_work) and (dies is None or step < dies):
        for stream in [s for s in waiting if stories[s].part.arrival <= step]:
            generation.start(waiting.pop(stream))
        seen |= {s.stream: s for s in scheduler_of(engine).sequences()}
        if engine.has_work:
            before = _made(generation.streams.values())
            generation.step()
            if rows.last > 1:
                outcome.in_company += _made(generation.streams.values()) - before
        step += 1
    for stream, transcript in generation.streams.items():
        stories[stream].absorb(transcript)
        outcome.accepted += transcript.counts.accepted
    outcome.preemptions += sum(sequence.preemptions for sequence in seen.values())
    mismatches = engine.sentinel_mismatches
    if mismatches:
        outcome.differences.append(f"the engine's sentinel found {mismatches} mismatches")


def _made(transcripts: Iterable[Transcript]) -> int:
    return sum(len(transcript.tokens) for transcript in transcripts)


def _warming(starts: Iterable[Start]) -> Sequence[Start]:
    """The same texts' beginnings, under other names."""
    return [
        msgspec.structs.replace(
            start,
            stream=f"warming {start.stream}",
            sampling=start.sampling.limited(len(start.committed) + WARMING_TOKENS),
        )
        for start in starts
    ]


def _half_right(reference: Transcript) -> str:
    """Right at first, then wrong, then right again: something to accept and something to reject."""
    half = len(reference.text) // 2
    return f"{reference.text[:half]} a guess {reference.text[half:]}"
