# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# torch declares some of its types in part only.
"""Spans become flat rows, slots and rectangles; every row sees exactly its own past."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from engine.model.batch import NARROW, SMALL_CONTEXT_BLOCKS, Span, build_input

if TYPE_CHECKING:
    from engine.model.llama import ModelInput

SIZE = 16


def build(*spans: Span, groups: int = 1) -> ModelInput:
    return build_input(
        list(spans),
        block_size=SIZE,
        groups=groups,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )


def span(rows: int, start: int, first_block: int = 0, *, logits_from: int | None = None) -> Span:
    """Consecutive blocks from `first_block` on; tokens say their position."""
    table = list(range(first_block, first_block + -(-(start + rows) // SIZE)))
    tokens = list(range(start, start + rows))
    return Span(tokens, start, table, rows if logits_from is None else logits_from)


def test_input_lays_spans_out_one_after_another() -> None:
    step = build(
        span(3, 30, logits_from=2),
        Span([7], 5, [9], 0),
        Span([1, 2], 0, [4], 2),
    )
    assert step.tokens.tolist() == [30, 31, 32, 7, 1, 2]
    assert step.positions.tolist() == [30, 31, 32, 5, 0, 1]
    assert step.slots.tolist() == [30, 31, 32, 9 * SIZE + 5, 4 * SIZE, 4 * SIZE + 1]
    assert step.logits_for.tolist() == [2, 3]


def test_slots_follow_the_block_table_across_its_borders() -> None:
    step = build(Span([0] * 4, 14, [8, 3], 4))
    assert step.slots.tolist() == [8 * SIZE + 14, 8 * SIZE + 15, 3 * SIZE, 3 * SIZE + 1]


def test_step_without_wanted_logits_asks_for_none() -> None:
    assert build(span(20, 0)).logits_for.tolist() == []


def test_narrow_spans_share_a_rectangle_and_wide_ones_attend_alone() -> None:
    step = build(span(1, 40), span(NARROW, 3), span(NARROW + 1, 0), span(2, 9))
    assert [tuple(rows.pick.shape) for rows in step.groups] == [(3, NARROW), (1, NARROW + 1)]


def test_long_contexts_do_not_share_with_short_ones() -> None:
    step = build(span(1, SMALL_CONTEXT_BLOCKS * SIZE), span(1, 3), span(1, 20))
    assert sorted(rows.pick.shape[0] for rows in step.groups) == [1, 2]


def test_every_row_sees_its_past_and_nothing_else() -> None:
    spans = [span(1, 40, 0), span(9, 12, 3), span(30, 5, 6), span(4, 0, 9)]
    groups = 3
    step = build(*spans, groups=groups)
    seen: dict[int, set[int]] = {}
    for rows in step.groups:
        sequences, width = rows.pick.shape
        assert rows.mask.shape == (sequences, 1, groups * width, rows.blocks.shape[1] * SIZE)
        for place, target in zip(rows.back.tolist(), rows.target.tolist(), strict=True):
            sequence, row = divmod(place, width)
            assert rows.pick[sequence, row] == target
            for group in range(groups):
                visible = rows.mask[sequence, 0, group * width + row] == 0
                slots = {
                    int(rows.blocks[sequence, at // SIZE]) * SIZE + at % SIZE
                    for at in visible.nonzero().squeeze(1).tolist()
                }
                assert seen.setdefault(target, slots) == slots
    row = 0
    for one in spans:
        for place in range(len(one.tokens)):
            past = range(one.start + place + 1)
            assert seen[row] == {one.block_table[p // SIZE] * SIZE + p % SIZE for p in past}
            row += 1
    assert len(seen) == row


def test_padding_is_masked_but_never_wholly() -> None:
    """A row that sees nothing would be 0 / 0."""
    step = build(span(1, 0), span(9, 60))
    for rows in step.groups:
        assert (rows.mask == 0).any(-1).all()


def test_single_span_in_consecutive_blocks_is_a_dense_run() -> None:
    (rows,) = build(span(5, 30, 2)).groups
    assert (rows.run, rows.dense) == ((2, 3), True)
    (rows,) = build(Span([0], 20, [5, 4], 0)).groups
    assert (rows.run, rows.dense) == (None, True)


def test_two_spans_are_dense_only_without_padding() -> None:
    (rows,) = build(span(2, 3), span(2, 40)).groups
    assert (rows.run, rows.dense) == (None, True)
    (rows,) = build(span(2, 3), span(1, 40)).groups
    assert not rows.dense
    assert rows.pick.tolist() == [[0, 1], [2, 2]]


def test_blocks_behind_a_spans_end_are_left_out() -> None:
    """Reserved for drafts that were not made."""
    (rows,) = build(Span([0], 15, [3, 8, 9], 0)).groups
    assert rows.blocks.tolist() == [[3]]
