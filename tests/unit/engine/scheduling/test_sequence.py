"""The counting a sequence does for itself."""

from __future__ import annotations

from engine.scheduling.sequence import Status
from tests.unit.engine.sequences import sequence


def test_sequence_counts_what_is_pending_and_what_remains() -> None:
    one = sequence("a", [1, 2, 3], committed=[4, 5], max_tokens=10)
    assert (len(one), one.prompt_length, one.completion_length) == (5, 3, 2)
    assert (one.pending, one.remaining) == (5, 8)
    one.computed = 4
    assert one.pending == 1


def test_sequence_forgets_its_blocks_when_preempted_but_not_its_tokens() -> None:
    one = sequence("a", list(range(40)))
    one.status, one.computed, one.block_table, one.hashed_blocks = Status.RUNNING, 33, [7, 8, 9], 2
    one.preempted()
    assert (one.status, one.preemptions, one.pending) == (Status.PREEMPTED, 1, 40)
    assert (one.block_table, one.hashed_blocks) == ([], 0)


def test_sequence_that_could_not_be_let_in_was_not_preempted() -> None:
    one = sequence("a", list(range(40)))
    one.computed, one.block_table, one.hashed_blocks = 32, [7, 8], 2
    one.vacated()
    assert (one.status, one.preemptions) == (Status.WAITING, 0)
    assert (one.computed, one.block_table, one.hashed_blocks) == (0, [], 0)
