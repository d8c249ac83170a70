"""Units and text: offsets in every unit mean the same place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import cursor, units
from protocol.cursor import Cursor, Mark
from protocol.errors import RequestError
from protocol.text import BLOCK_LENGTH, AppendOnlyText, common_prefix_length
from tests.property.traces import offset_units, patient, texts

if TYPE_CHECKING:
    from protocol.events import OffsetUnit


@patient
@given(before=texts, after=texts, unit=offset_units)
def test_index_finds_where_a_text_was_joined(before: str, after: str, unit: OffsetUnit) -> None:
    offset = units.length(before, unit)
    assert units.length(before + after, unit) == offset + units.length(after, unit)
    assert units.index(before + after, offset, unit) == len(before)


@patient
@given(text=texts, offset=st.integers(-2, 60), unit=offset_units)
def test_index_refuses_every_other_offset(text: str, offset: int, unit: OffsetUnit) -> None:
    starts = {units.length(text[:i], unit): i for i in range(len(text) + 1)}
    if offset in starts:
        assert units.index(text, offset, unit) == starts[offset]
    else:
        with pytest.raises(ValueError, match="offset"):
            units.index(text, offset, unit)


@patient
@given(
    pieces=st.lists(st.tuples(st.sampled_from("aé日👍"), st.integers(0, BLOCK_LENGTH + 5))),
    ends=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_append_only_text_is_the_text_that_was_appended(
    pieces: list[tuple[str, int]], ends: tuple[float, float]
) -> None:
    text = AppendOnlyText()
    whole = ""
    for character, times in pieces:
        text.append(character * times)
        whole += character * times
    start, stop = sorted(int(end * len(whole)) for end in ends)
    assert text.length == len(whole)
    assert text.slice(start, stop) == whole[start:stop]
    assert str(text) == whole


@patient
@given(told=texts, canonical=texts)
def test_common_prefix_is_the_longest_one(told: str, canonical: str) -> None:
    n = common_prefix_length(told, canonical)
    assert told[:n] == canonical[:n]
    assert told[n : n + 1] != canonical[n : n + 1] or n == len(told) == len(canonical)


@patient
@given(numbers=st.tuples(*[st.integers(0, 2**53 - 1)] * 3), mark=st.none() | st.sampled_from(Mark))
def test_cursor_is_read_as_written(numbers: tuple[int, int, int], mark: Mark | None) -> None:
    written = Cursor(*numbers, mark=mark)
    assert cursor.parse(str(written)) == written


@patient
@given(text=st.text("0123456789.-+ e\n١", max_size=12))
def test_cursor_has_one_spelling(text: str) -> None:
    try:
        parsed = cursor.parse(text)
    except RequestError:
        return
    assert str(parsed) == text
