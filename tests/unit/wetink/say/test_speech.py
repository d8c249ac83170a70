from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wetink.say.speech import speech


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("**Dr. Smith** paid _3.14_ dollars.", "Dr. Smith paid 3.14 dollars."),
        ("# Title\n- one\n> two\n* three", "Title one two three"),
        ("2 * 3 = 6, C# and snake_case - all of it", "2 * 3 = 6, C# and snake_case - all of it"),
        ("see [the guide](https://example.org/a) and [1]", "see the guide and [1]"),
        ("`code` and ~~gone~~\x01", "code and gone"),
    ],
)
def test_marks_are_not_said(text: str, said: str) -> None:
    assert speech(text).split() == said.split()


@given(st.text(st.sampled_from("ab *_`~#[](>-\n\x01👩")))
def test_speech_keeps_every_place(text: str) -> None:
    blanked = speech(text)
    assert len(blanked) == len(text)
    assert all(new in (old, " ") for old, new in zip(text, blanked, strict=True))
    assert [c for c in blanked if c in "ab👩"] == [c for c in text if c in "ab👩"] or "](" in text
