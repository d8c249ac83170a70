# pyright: reportPrivateUsage=false
# Planted corruption reaches into the tables that the integrity check guards.
"""Who owns which block, what can be found as a prefix, and what the integrity check sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engine.errors import IntegrityError
from engine.scheduling.blocks import HASH_BYTES, BlockManager, block_hash
from tests.unit.engine.sequences import sequence

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.scheduling.sequence import Sequence

SIZE = 4


def filled(manager: BlockManager, name: str, tokens: list[int], salt: bytes = b"") -> Sequence:
    """A sequence whose tokens are all computed and registered."""
    one = sequence(name, tokens, salt=salt)
    manager.attach_prefix(one)
    assert manager.reserve(one, len(tokens))
    one.computed = len(tokens)
    manager.register(one)
    return one


def test_block_hash_depends_on_tokens_order_and_everything_before() -> None:
    hashes = {
        block_hash(b"", [1, 2, 3, 4]),
        block_hash(b"", [4, 3, 2, 1]),
        block_hash(b"tenant", [1, 2, 3, 4]),
        block_hash(block_hash(b"", [9, 9, 9, 9]), [1, 2, 3, 4]),
        block_hash(b"", [1, 2, 3, 2**40]),
    }
    assert len(hashes) == 5
    assert {len(digest) for digest in hashes} == {HASH_BYTES}


def test_manager_finds_the_longest_cached_prefix_of_whole_blocks() -> None:
    manager = BlockManager(16, SIZE)
    first = filled(manager, "a", list(range(11)))
    other = sequence("b", [*range(8), 99, 98, 97, 96, 95])
    assert manager.attach_prefix(other) == 8
    assert other.block_table == first.block_table[:2]
    assert other.computed == 8
    manager.check_integrity([first, other])


def test_manager_leaves_the_last_token_to_compute() -> None:
    manager = BlockManager(16, SIZE)
    filled(manager, "a", list(range(8)))
    again = sequence("b", list(range(8)))
    assert manager.attach_prefix(again) == 4


def test_manager_does_not_find_a_block_behind_another_beginning() -> None:
    manager = BlockManager(16, SIZE)
    filled(manager, "a", list(range(12)))
    assert manager.attach_prefix(sequence("b", [7, *range(1, 12)])) == 0


def test_manager_keeps_prefixes_of_different_salts_apart() -> None:
    manager = BlockManager(16, SIZE)
    filled(manager, "a", list(range(12)), salt=b"one")
    assert manager.attach_prefix(sequence("b", list(range(12)), salt=b"two")) == 0
    assert manager.attach_prefix(sequence("c", list(range(12)), salt=b"one")) == 8


def test_manager_registers_only_full_computed_blocks() -> None:
    manager = BlockManager(16, SIZE)
    one = sequence("a", list(range(12)))
    assert manager.reserve(one, 12)
    one.computed = 7
    manager.register(one)
    assert manager.attach_prefix(sequence("b", list(range(12)))) == 4


def test_manager_without_prefix_cache_finds_nothing() -> None:
    manager = BlockManager(16, SIZE, prefix_cache=False)
    filled(manager, "a", list(range(12)))
    assert manager.attach_prefix(sequence("b", list(range(12)))) == 0


def test_freed_blocks_are_found_until_they_are_handed_out_again() -> None:
    manager = BlockManager(3, SIZE)
    one = filled(manager, "a", list(range(12)))
    manager.free(one)
    assert manager.free_blocks == 3
    again = sequence("b", list(range(12)))
    assert manager.attach_prefix(again) == 8
    manager.free(again)
    taker = sequence("c", [50] * 5)
    assert manager.reserve(taker, 5)
    late = sequence("d", list(range(12)))
    assert manager.attach_prefix(late) == 4, "the end of a prefix goes first"
    manager.check_integrity([taker, late])


def test_least_recently_used_prefix_is_given_up_first() -> None:
    manager = BlockManager(4, SIZE)
    one, two = filled(manager, "a", [1] * 8), filled(manager, "b", [2] * 8)
    manager.free(one)
    manager.free(two)
    touched = sequence("c", [1] * 9)
    assert manager.attach_prefix(touched) == 8
    manager.free(touched)
    taker = sequence("d", [3] * 8)
    assert manager.reserve(taker, 8)
    assert manager.attach_prefix(sequence("e", [2] * 9)) == 0
    assert manager.attach_prefix(sequence("f", [1] * 9)) == 8


def test_rejected_drafts_do_not_push_prefixes_out() -> None:
    manager = BlockManager(6, SIZE)
    old = filled(manager, "a", list(range(12)))
    manager.free(old)
    decoding = sequence("b", [7] * 4)
    assert manager.reserve(decoding, 4)
    for _ in range(20):
        assert manager.reserve(decoding, 8)
        manager.trim(decoding)
        manager.check_integrity([decoding])
    assert manager.attach_prefix(sequence("c", [*range(12), 0])) == 12


def test_manager_refuses_what_does_not_fit_and_changes_nothing() -> None:
    manager = BlockManager(3, SIZE)
    one = sequence("a", [0] * 4)
    assert manager.reserve(one, 4)
    table = list(one.block_table)
    assert manager.missing(one, 16) == 3
    assert not manager.reserve(one, 16)
    assert one.block_table == table
    assert manager.reserve(one, 12)
    assert manager.free_blocks == 0
    manager.check_integrity([one])


def test_trim_keeps_the_blocks_of_committed_tokens() -> None:
    manager = BlockManager(8, SIZE)
    one = sequence("a", [0] * 5)
    assert manager.reserve(one, 5 + 8)
    manager.trim(one)
    assert len(one.block_table) == 2
    assert manager.free_blocks == 6


def test_shared_block_is_free_only_when_both_have_let_go() -> None:
    manager = BlockManager(8, SIZE)
    one = filled(manager, "a", list(range(9)))
    two = filled(manager, "b", list(range(9)))
    assert two.block_table[:2] == one.block_table[:2]
    assert manager.free_blocks == 8 - 4
    manager.free(one)
    assert manager.free_blocks == 5
    manager.check_integrity([two])
    manager.free(two)
    assert manager.free_blocks == 8


def _twice(manager: BlockManager, one: Sequence) -> None:
    one.block_table.append(one.block_table[0])
    manager._references[one.block_table[0]] += 1


CORRUPTIONS: dict[str, tuple[Callable[[BlockManager, Sequence], object], str]] = {
    "a reference too many": (
        lambda manager, one: manager._references.__setitem__(one.block_table[0], 2),
        "references",
    ),
    "a lost block": (lambda manager, _: manager._free.popitem(), "used 0 times, free: False"),
    "a used block among the free": (
        lambda manager, one: manager._free.__setitem__(one.block_table[0], None),
        "free: True",
    ),
    "a block twice in a table": (_twice, "stands twice"),
    "computed tokens without a block": (
        lambda _, one: one.block_table.clear(),
        "fewer blocks than computed",
    ),
    "a hash of another block": (
        lambda manager, one: manager._hash_of.__setitem__(one.block_table[0], b"x" * HASH_BYTES),
        "hash tables disagree",
    ),
    "a hash nobody finds": (
        lambda manager, _: manager._hash_of.__setitem__(7, b"x" * HASH_BYTES),
        "differ in size",
    ),
}


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_integrity_check_sees_planted_corruption(corruption: str) -> None:
    manager = BlockManager(8, SIZE)
    one = filled(manager, "a", list(range(9)))
    manager.check_integrity([one])
    plant, message = CORRUPTIONS[corruption]
    plant(manager, one)
    with pytest.raises(IntegrityError, match=message):
        manager.check_integrity([one])
