"""Who runs in a step, with how many rows, and who gives way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from engine.scheduling.blocks import BlockManager
from engine.scheduling.scheduler import Scheduler
from engine.scheduling.sequence import Sequence, Status
from tests.unit.engine.sequences import sequence

if TYPE_CHECKING:
    from collections.abc import Iterable

SIZE = 4


class Bench:
    """A scheduler, and a model that says 1."""

    def __init__(self, *, blocks: int = 64, sequences: int = 8, rows: int = 32) -> None:
        self.blocks = BlockManager(blocks, SIZE)
        self.scheduler = Scheduler(self.blocks, max_sequences=sequences, max_step_tokens=rows)
        self.arrivals = 0

    def add(self, name: str, prompt: int, **changes: Any) -> Sequence:
        """A sequence with a prompt of so many tokens, different for each name."""
        self.arrivals += 1
        one = sequence(name, [ord(name[0])] * prompt, arrival=self.arrivals, **changes)
        self.scheduler.add(one)
        return one

    def step(self, accept: int = 0) -> dict[str, tuple[int, int]]:
        """(rows, draft limit) by sequence; `accept` so many drafts where there are any."""
        plan = self.scheduler.schedule()
        for one, rows, limit in plan:
            samples = rows == one.pending
            one.computed += rows
            if samples:
                hits = min(accept, limit)
                one.tokens += [1] * (hits + 1)
                one.computed += hits
                self.blocks.trim(one)
            self.blocks.register(one)
        self.blocks.check_integrity(list(self.scheduler.sequences()))
        return {item.sequence.stream: (item.rows, item.draft_limit) for item in plan}


def names(sequences: Iterable[Sequence]) -> list[str]:
    return [one.stream for one in sequences]


def test_scheduler_cuts_prompts_into_chunks_of_the_row_budget() -> None:
    bench = Bench(rows=10)
    one = bench.add("a", 24)
    assert [bench.step(), bench.step()] == [{"a": (10, 0)}] * 2
    assert one.completion_length == 0
    assert bench.step() == {"a": (4, 0)}
    assert one.completion_length == 1
    assert bench.step() == {"a": (1, 0)}


def test_scheduler_serves_decoding_before_it_lets_new_prompts_in() -> None:
    bench = Bench(rows=10)
    bench.add("a", 3)
    assert bench.step() == {"a": (3, 0)}
    bench.add("b", 30)
    assert bench.step() == {"a": (1, 0), "b": (9, 0)}


def test_scheduler_lets_in_by_priority_then_arrival() -> None:
    bench = Bench(sequences=1)
    for name, priority in (("low", -1), ("first", 0), ("second", 0), ("high", 5)):
        bench.add(name, 2, priority=priority)
    assert names(bench.scheduler.sequences()) == ["high", "first", "second", "low"]
    order: list[str] = []
    while bench.scheduler.has_work:
        (name,) = bench.step()
        order.append(name)
        bench.scheduler.remove(next(s for s in bench.scheduler.running if s.stream == name))
    assert order == ["high", "first", "second", "low"]


def test_scheduler_runs_no_more_sequences_than_allowed() -> None:
    bench = Bench(sequences=2)
    for name in "abc":
        bench.add(name, 2)
    assert set(bench.step()) == {"a", "b"}
    assert names(bench.scheduler.waiting) == ["c"]


def test_scheduler_shares_the_rows_left_among_drafts() -> None:
    bench = Bench(rows=10)
    for name in "abc":
        bench.add(name, 2, max_draft=5)
    bench.step()
    assert bench.step() == {"a": (1, 5), "b": (1, 2), "c": (1, 0)}


def test_scheduler_drafts_no_token_beyond_the_last_one_wanted() -> None:
    """The verified token behind the drafts is one too."""
    bench = Bench()
    bench.add("a", 2, max_draft=8, max_tokens=5)
    assert bench.step() == {"a": (2, 4)}
    assert bench.step(accept=1) == {"a": (1, 3)}
    assert bench.step() == {"a": (1, 1)}
    assert bench.step() == {"a": (1, 0)}


def test_scheduler_drafts_nothing_in_the_middle_of_a_prompt() -> None:
    bench = Bench(rows=8)
    bench.add("a", 12, max_draft=4)
    assert bench.step() == {"a": (8, 0)}
    assert bench.step() == {"a": (4, 4)}


def test_drafts_preempt_nobody() -> None:
    bench = Bench(blocks=3)
    one, two = bench.add("a", 4, max_draft=8), bench.add("b", 3, max_draft=8)
    assert bench.step() == {"a": (4, 4), "b": (3, 1)}
    assert bench.step() == {"a": (1, 3), "b": (1, 0)}
    assert (one.preemptions, two.preemptions) == (0, 0)


def test_scheduler_preempts_from_the_back_when_blocks_run_out() -> None:
    bench = Bench(blocks=4)
    one, two, three = (bench.add(name, 4) for name in "abc")
    bench.step()
    # Each needs a second block now; there is one free.
    assert set(bench.step()) == {"a", "b"}
    assert three.status is Status.PREEMPTED
    assert (three.computed, three.block_table) == (0, [])
    assert names(bench.scheduler.waiting) == ["c"]
    assert [s.preemptions for s in (one, two, three)] == [0, 0, 1]
    assert bench.scheduler.preemptions == 1


def test_scheduler_preempts_the_least_urgent_first() -> None:
    bench = Bench(blocks=3)
    urgent_last = [bench.add("a", 4), bench.add("b", 4, priority=1)]
    bench.step()
    assert set(bench.step()) == {"b"}
    assert [s.preemptions for s in urgent_last] == [1, 0]


def test_preempted_sequence_keeps_its_place_and_computes_everything_again() -> None:
    bench = Bench(blocks=4, rows=32)
    one, two = bench.add("a", 6), bench.add("b", 7)
    bench.step()
    for _ in range(2):
        bench.step()
    assert two.status is Status.PREEMPTED
    bench.add("c", 2)
    assert names(bench.scheduler.waiting) == ["b", "c"]
    held = len(two.tokens)
    bench.scheduler.remove(one)
    cached = (held - 1) // SIZE * SIZE
    plan = bench.step()
    assert plan["b"][0] >= held - cached
    assert two.status is Status.RUNNING
    assert len(two.tokens) == held + 1


def test_sequence_that_does_not_fit_waits_and_is_not_counted_as_preempted() -> None:
    bench = Bench(blocks=3)
    bench.add("a", 8)
    waiting = bench.add("b", 5)
    for _ in range(3):
        assert set(bench.step()) == {"a"}
    assert (waiting.status, waiting.preemptions, waiting.computed) == (Status.WAITING, 0, 0)


def test_scheduler_counts_a_cached_prefix_of_the_prompt() -> None:
    bench = Bench()
    one = bench.add("a", 10)
    bench.step()
    bench.arrivals += 1
    again = sequence("b", one.tokens[:10], arrival=bench.arrivals)
    bench.scheduler.add(again)
    assert bench.step() == {"a": (1, 0), "b": (2, 0)}
    assert (one.cached_prompt, again.cached_prompt) == (0, 8)


@pytest.mark.parametrize("when", ["waiting", "running", "preempted"])
def test_removed_sequence_gives_everything_back(when: str) -> None:
    bench = Bench(blocks=4)
    one, two = bench.add("a", 8), bench.add("b", 6)
    if when != "waiting":
        bench.step()
    if when == "preempted":
        bench.step()
        assert two.status is Status.PREEMPTED
    bench.scheduler.remove(two)
    assert two.status is Status.FINISHED
    assert names(bench.scheduler.sequences()) == ["a"]
    bench.scheduler.remove(one)
    assert bench.blocks.free_blocks == 4
    assert not bench.scheduler.has_work
