"""AppendOnlyText; its equality with a plain string is a property."""

from __future__ import annotations

from protocol.text import BLOCK_LENGTH, AppendOnlyText


def test_text_joins_a_slice_across_blocks() -> None:
    text = AppendOnlyText()
    for _ in range(4):
        text.append("x" * (BLOCK_LENGTH - 1))
        text.append("|")
    assert text.slice(BLOCK_LENGTH - 2, 2 * BLOCK_LENGTH + 1) == (
        "x|" + "x" * (BLOCK_LENGTH - 1) + "|" + "x"
    )


def test_text_slices_from_closed_blocks_into_the_open_one() -> None:
    text = AppendOnlyText("a" * BLOCK_LENGTH)
    text.append("bc")
    assert text.slice(BLOCK_LENGTH - 1, BLOCK_LENGTH + 1) == "ab"
    assert text.slice(BLOCK_LENGTH + 1, BLOCK_LENGTH + 2) == "c"
    assert text.slice(0, 1) == "a"
