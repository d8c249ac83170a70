"""A smaller model of the same tokenizer proposes (Leviathan et al. 2023, Chen et al. 2023).

It draws with the target's own noise (see sampling/sampler.py), so where the two
distributions are close the
two tokens are mostly the same one. Its keys and values lie in blocks of the same numbers as the
target's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.drafters.acceptance import Acceptance
from engine.drafters.base import Proposal
from engine.model.batch import Span
from engine.sampling.sampler import Judged

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engine.drafters.base import SequenceView
    from engine.model.runner import StepRunner
    from engine.sampling.sampler import Sampler
    from engine.scheduling.sequence import Sequence as EngineSequence

PRIOR_ACCEPTANCE = 0.6
"""Assumed chance that a token is accepted, before anything was measured."""


class ModelDrafter:
    """Owns the draft model and its KV cache, and how far each stream has been read."""

    name = "model"

    def __init__(
        self,
        runner: StepRunner,
        sequences: Mapping[str, EngineSequence],
        samplers: Mapping[str, Sampler],
        *,
        special_tokens: frozenset[int],
        max_rows: int,
    ) -> None:
        """`sequences` and `samplers` are the engine's own, by stream; read here, never changed.

        `special_tokens` end a draft. `max_rows` bounds one forward pass while it catches up.
        """
        self._runner = runner
        self._sequences = sequences
        self._samplers = samplers
        self._special = special_tokens
        self._max_rows = max_rows
        self._read: dict[str, tuple[int, int]] = {}
        """By stream: tokens in the cache, and how often it had been preempted by then."""
        self._drafts: dict[str, list[int]] = {}
        self._acceptance = Acceptance(PRIOR_ACCEPTANCE)

    @property
    def acceptance(self) -> float:
        """Measured chance that one more drafted token is accepted."""
        return self._acceptance.chance

    def begin(self, stream: str, prompt: Sequence[int], prediction: Sequence[int]) -> None:
        self._read[stream] = (0, 0)

    def propose(self, items: Sequence[tuple[SequenceView, int]]) -> list[Proposal]:
        """Drafts of all items together, one forward pass per place. Mutates the draft cache."""
        drafts: list[list[int]] = [[] for _ in items]
        live = [number for number, (_, limit) in enumerate(items) if limit > 0]
        sequences = {number: self._sequences[items[number][0].stream] for number in live}
        for number in live:
            self._catch_up(sequences[number])
        while live:
            chosen = self._next(
                [sequences[number] for number in live], [drafts[number] for number in live]
            )
            still: list[int] = []
            for number, token in zip(live, chosen, strict=True):
                if token is None or token in self._special:
                    continue
                drafts[number].append(token)
                if len(drafts[number]) < items[number][1]:
                    still.append(number)
            live = still
        for (view, _), draft in zip(items, drafts, strict=True):
            self._drafts[view.stream] = draft
        chance = self.acceptance
        return [Proposal(d, [chance ** (i + 1) for i in range(len(d))]) for d in drafts]

    def observe(self, stream: str, drafted: int, accepted: int) -> None:
        self._acceptance.observe(drafted, accepted)
        read, preemptions = self._read[stream]
        # The last drafted token was never fed back, and tokens behind a rejection are not the
        # text's.
        self._read[stream] = (
            read + min(accepted, max(len(self._drafts[stream]) - 1, 0)),
            preemptions,
        )

    def end(self, stream: str) -> None:
        self._read.pop(stream, None)
        self._drafts.pop(stream, None)

    def _catch_up(self, sequence: EngineSequence) -> None:
        """Read all committed tokens but the last, which the first draft step reads."""
        read, preemptions = self._read[sequence.stream]
        if preemptions != sequence.preemptions:
            read = 0
        end = len(sequence.tokens) - 1
        while read < end:
            rows = sequence.tokens[read : min(end, read + self._max_rows)]
            self._runner.run([Span(rows, read, sequence.block_table, len(rows))])
            read += len(rows)
        self._read[sequence.stream] = (end, sequence.preemptions)

    def _next(self, sequences: list[EngineSequence], drafts: list[list[int]]) -> list[int | None]:
        """One more token for each, after its committed tokens and its draft so far; None where the
        draft model's logits are no numbers.
        """
        spans: list[Span] = []
        for sequence, draft in zip(sequences, drafts, strict=True):
            last = draft[-1] if draft else sequence.tokens[-1]
            start = len(sequence.tokens) - 1 + len(draft)
            spans.append(Span([last], start, sequence.block_table, 0))
        logits = self._runner.run(spans)
        items = [
            Judged(
                self._samplers[sequence.stream], sequence.tokens + draft, sequence.prompt_length, []
            )
            for sequence, draft in zip(sequences, drafts, strict=True)
        ]
        tokens: list[int | None] = []
        verdicts = self._runner.judge(logits, items)
        for sequence, draft, verdict in zip(sequences, drafts, verdicts, strict=True):
            tokens.append(None if verdict.failed else verdict.tokens[0])
            if not draft:
                read, preemptions = self._read[sequence.stream]
                self._read[sequence.stream] = (read + 1, preemptions)
        return tokens
