"""Scheduler and block manager under any traffic, against a model that knows no blocks.

The simple model: a store from (block, place) to what is written there, which depends, like keys and
values, on the tenant and on all tokens up to that place. A step writes its rows; whatever a
sequence counts as computed must then be readable through its block table, whoever was preempted,
shared a prefix or had a draft rejected in between.
"""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)

from engine.sampling.params import SamplingParams
from engine.scheduling.blocks import BlockManager
from engine.scheduling.scheduler import Scheduler
from engine.scheduling.sequence import Sequence, Status

SIZE = 4
BLOCKS = 12
CONTEXT = BLOCKS * SIZE
REJECTED = -7
"""A drafted token that will turn out wrong."""


def written(sequence: Sequence, tokens: list[int], place: int) -> int:
    return hash((sequence.salt, *tokens[: place + 1]))


class Traffic(RuleBasedStateMachine):
    streams: Bundle[Sequence] = Bundle("streams")

    @initialize(rows=st.integers(1, 20), places=st.integers(1, 6), prefix_cache=st.booleans())
    def begin(self, rows: int, places: int, prefix_cache: bool) -> None:
        self.rows, self.places = rows, places
        self.blocks = BlockManager(BLOCKS, SIZE, prefix_cache=prefix_cache)
        self.scheduler = Scheduler(self.blocks, max_sequences=places, max_step_tokens=rows)
        self.store: dict[tuple[int, int], int] = {}
        self.live: list[Sequence] = []
        self.arrivals = 0

    @rule(
        target=streams,
        beginning=st.integers(0, 2),
        length=st.integers(1, 24),
        completion=st.integers(1, 24),
        max_draft=st.integers(0, 8),
        priority=st.integers(-1, 1),
        salt=st.sampled_from([b"", b"tenant"]),
    )
    def arrives(
        self,
        beginning: int,
        length: int,
        completion: int,
        max_draft: int,
        priority: int,
        salt: bytes,
    ) -> Sequence:
        """Prompts are cut from three texts that differ in their first block only."""
        self.arrivals += 1
        sequence = Sequence(
            f"s{self.arrivals}",
            [place if place >= SIZE else beginning * 100 + place for place in range(length)],
            [],
            SamplingParams(max_tokens=completion),
            seed=0,
            priority=priority,
            arrival=self.arrivals,
            max_draft=max_draft,
            drafter="ngram",
            salt=salt,
        )
        self.scheduler.add(sequence)
        self.live.append(sequence)
        return sequence

    @rule(sequence=consumes(streams))
    def is_cancelled(self, sequence: Sequence) -> None:
        if sequence.status is not Status.FINISHED:
            self._end(sequence)

    @precondition(lambda self: self.live)
    @rule(accept=st.integers(0, 8), drafted=st.integers(0, 8))
    def steps(self, accept: int, drafted: int) -> None:
        before = {sequence.stream: len(sequence.tokens) for sequence in self.live}
        plan = self.scheduler.schedule()
        assert plan, "there is work"
        assert sum(rows + limit for _, rows, limit in plan) <= self.rows
        assert len(self.scheduler.running) <= self.places
        best = min(self.live, key=lambda one: (-one.priority, one.arrival))
        scheduled = [item.sequence for item in plan]
        assert best in scheduled or best.status is not Status.RUNNING, "the most urgent goes on"
        # All write before anybody reads, as a forward pass does.
        for sequence, rows, limit in plan:
            drafts = min(limit, drafted)
            assert rows >= 1
            end = sequence.computed + rows
            self._write(sequence, sequence.tokens[:end] + [REJECTED] * drafts, sequence.computed)
        for sequence, rows, limit in plan:
            samples = rows == sequence.pending
            sequence.computed += rows
            if samples:
                self._verify(sequence, min(limit, drafted, accept))
            self.blocks.register(sequence)
            if sequence.remaining < 1:
                self._end(sequence)
        for sequence in self.live:
            assert len(sequence.tokens) >= before[sequence.stream], "committed tokens stay"

    def _write(self, sequence: Sequence, tokens: list[int], start: int) -> None:
        for place in range(start, len(tokens)):
            slot = (sequence.block_table[place // SIZE], place % SIZE)
            self.store[slot] = written(sequence, tokens, place)

    def _verify(self, sequence: Sequence, accepted: int) -> None:
        """The first drafts were right: their slots hold what is now text."""
        base = len(sequence.tokens)
        sequence.tokens += [sequence.tokens[0] * 7 + base + i for i in range(accepted + 1)]
        self._write(sequence, sequence.tokens[: base + accepted], base)
        sequence.computed += accepted
        self.blocks.trim(sequence)
        most = self.blocks.blocks_for(len(sequence.tokens))
        assert len(sequence.block_table) <= most, "a rejected draft gives its blocks back"

    def _end(self, sequence: Sequence) -> None:
        self.scheduler.remove(sequence)
        self.live.remove(sequence)

    @invariant()
    def blocks_and_tables_agree(self) -> None:
        self.blocks.check_integrity(self.live)

    @invariant()
    def every_sequence_is_in_one_list(self) -> None:
        listed = [sequence.stream for sequence in self.scheduler.sequences()]
        assert sorted(listed) == sorted(sequence.stream for sequence in self.live)

    @invariant()
    def computed_tokens_are_where_the_table_says(self) -> None:
        for sequence in self.live:
            held = [
                self.store[sequence.block_table[place // SIZE], place % SIZE]
                for place in range(sequence.computed)
            ]
            expected = [
                written(sequence, sequence.tokens, place) for place in range(sequence.computed)
            ]
            assert held == expected, sequence.stream

    @invariant()
    def nobody_holds_blocks_without_running(self) -> None:
        for sequence in self.live:
            assert (sequence.status is Status.RUNNING) == (sequence in self.scheduler.running)
            if sequence.status is not Status.RUNNING:
                assert sequence.block_table == []

    def teardown(self) -> None:
        """Whatever came, everybody gets to the end, and every block comes back."""
        for _ in range(3000):
            if not self.live:
                break
            self.steps(accept=1, drafted=2)
        assert not self.live, "a sequence starves"
        assert self.blocks.free_blocks == BLOCKS


TestTraffic = Traffic.TestCase
TestTraffic.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
