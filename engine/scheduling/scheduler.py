"""Which sequences run in the next step, with how many rows. Continuous batching, no torch.

Rows are what a step costs: a decoding sequence takes one row and one more per draft token, a
sequence in prefill takes as many of its prompt tokens as the budget leaves (chunked prefill).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from engine.scheduling.sequence import Sequence, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.scheduling.blocks import BlockManager


class Scheduled(NamedTuple):
    """One sequence's share of a step."""

    sequence: Sequence
    rows: int
    """Committed tokens to compute: 1 when decoding, a chunk of the prompt in prefill."""
    draft_limit: int
    """Draft tokens it may add; the blocks for them are reserved."""

    @property
    def samples(self) -> bool:
        """Whether its last row's logits yield a token."""
        return self.rows == self.sequence.pending


class Scheduler:
    """Waiting, running and preempted sequences. Owns admission, order and preemption."""

    def __init__(
        self,
        blocks: BlockManager,
        *,
        max_sequences: int,
        max_step_tokens: int,
    ) -> None:
        self.blocks = blocks
        self._max_sequences = max_sequences
        self._max_step_tokens = max_step_tokens
        self.waiting: list[Sequence] = []
        """Best first: (priority, arrival); preempted sequences keep their arrival, hence their
        place.
        """
        self.running: list[Sequence] = []
        self.preemptions = 0
        """So far."""

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    def sequences(self) -> Iterator[Sequence]:
        yield from self.running
        yield from self.waiting

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)
        self.waiting.sort(key=_rank)

    def remove(self, sequence: Sequence) -> None:
        """It has ended, however; its blocks come back."""
        self.blocks.free(sequence)
        sequence.status = Status.FINISHED
        if sequence in self.running:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)

    def schedule(self) -> list[Scheduled]:
        """Plan one step. Every returned sequence has blocks for its rows and its drafts."""
        budget = self._max_step_tokens
        plan: list[Scheduled] = []
        for sequence in sorted(self.running, key=_rank):
            if sequence.status is not Status.RUNNING:
                continue
            rows = min(sequence.pending, budget)
            if rows == 0:
                break
            if not self._make_room(sequence, sequence.computed + rows):
                continue
            plan.append(Scheduled(sequence, rows, 0))
            budget -= rows
        budget -= self._admit(plan, budget)
        return self._add_drafts(plan, budget)

    def _admit(self, plan: list[Scheduled], budget: int) -> int:
        """Let waiting sequences in while rows, places and free blocks last; returns the rows they
        took.
        """
        spent = 0
        while self.waiting and len(self.running) < self._max_sequences and spent < budget:
            sequence = self.waiting[0]
            cached = self.blocks.attach_prefix(sequence)
            rows = min(sequence.pending, budget - spent)
            # Room for the whole of what it holds by now, not just this chunk: admitting a sequence
            # that would be preempted half-way through its prefill wastes all of it.
            if not self.blocks.reserve(sequence, len(sequence.tokens)):
                self.blocks.free(sequence)
                sequence.vacated()
                break
            if sequence.completion_length == 0:
                sequence.cached_prompt = cached
            self.waiting.pop(0)
            sequence.status = Status.RUNNING
            self.running.append(sequence)
            plan.append(Scheduled(sequence, rows, 0))
            spent += rows
        return spent

    def _make_room(self, sequence: Sequence, tokens: int) -> bool:
        """Reserve blocks, preempting from the back of the order; False if it had to give way
        itself.
        """
        while not self.blocks.reserve(sequence, tokens):
            victim = max(self.running, key=_rank)
            self._preempt(victim)
            if victim is sequence:
                return False
        return True

    def _preempt(self, victim: Sequence) -> None:
        self.blocks.free(victim)
        victim.preempted()
        self.preemptions += 1
        self.running.remove(victim)
        self.add(victim)

    def _add_drafts(self, plan: list[Scheduled], budget: int) -> list[Scheduled]:
        """Share the rows left among decoding sequences. Drafts never preempt anybody."""
        result: list[Scheduled] = []
        for item in plan:
            sequence = item.sequence
            # The verified token after the last draft is a token too: never draft up to the limit.
            limit = min(sequence.max_draft, sequence.remaining - 1, budget) if item.samples else 0
            limit = max(limit, 0)
            while limit and not self.blocks.reserve(sequence, len(sequence.tokens) + limit):
                limit -= 1
            budget -= limit
            result.append(item._replace(draft_limit=limit))
        return result


def _rank(sequence: Sequence) -> tuple[int, int]:
    """Order of service: higher priority first, then first come."""
    return (-sequence.priority, sequence.arrival)
