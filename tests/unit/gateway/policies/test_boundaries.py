from __future__ import annotations

import pytest

from gateway.policies.boundaries import FINDERS


def chunks(unit: str, text: str, locale: str = "en") -> list[str]:
    """What leaves when `text` arrives one code point at a time; the rest comes last."""
    find = FINDERS[unit](locale)
    start, found = 0, list[str]()
    for end in range(1, len(text) + 1):
        length = find(text[start:end])
        if length:
            found.append(text[start : start + length])
            start += length
    return [*found, text[start:]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Dr. Smith paid 3.14 dollars. He left.",
            ["Dr. Smith paid 3.14 dollars. ", "He left."],
        ),
        ("It cost 3. 14 came.", ["It cost 3. ", "14 came."]),
        ('He said "Go." Then left.', ['He said "Go." ', "Then left."]),
        ('It was so. "Really?" she said.', ["It was so. ", '"Really?" she said.']),
        ("See Fig. 3 of the U.S. law. Done", ["See Fig. 3 of the U.S. law. ", "Done"]),
        ("你好。我是谁？好的", ["你好。", "我是谁？", "好的"]),
        ("One.\n\nTwo is.", ["One.\n\n", "Two is."]),
        ("no end in sight", ["no end in sight"]),
        ("Wait.", ["Wait."]),
    ],
)
def test_sentences_leave_whole_when_the_next_has_begun(text: str, expected: list[str]) -> None:
    assert chunks("sentence", text) == expected


def test_sentence_finder_takes_the_language_of_a_regional_locale() -> None:
    text = "Das ist z.B. gut so. Ja, sehr."
    assert chunks("sentence", text, "de-AT") == ["Das ist z.B. gut so. ", "Ja, sehr."]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, don't well-known x", ["Hello, ", "don't ", "well-known ", "x"]),
        ("3.14 is  pi", ["3.14 ", "is  ", "pi"]),
        ("a 👩\u200d🚒 b", ["a ", "👩\u200d🚒 ", "b"]),
        ("don'", ["don'"]),
    ],
)
def test_words_leave_with_the_whitespace_behind_them(text: str, expected: list[str]) -> None:
    assert chunks("word", text) == expected


def test_words_of_a_script_without_spaces_leave_one_by_one() -> None:
    found = chunks("word", "你好世界朋友")
    assert "".join(found) == "你好世界朋友"
    assert len(found) > 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("First, 3,14 or so; then ok", ["First, ", "3,14 or so; ", "then ok"]),
        ("Well — yes. And no", ["Well — ", "yes. ", "And no"]),
        ("于是，他走了，真的", ["于是，", "他走了，", "真的"]),
        ("at 10:30 it", ["at 10:30 it"]),
    ],
)
def test_clauses_end_at_punctuation_that_is_not_part_of_a_number(
    text: str, expected: list[str]
) -> None:
    assert chunks("clause", text) == expected


def test_lines_never_split_a_carriage_return_from_its_line_feed() -> None:
    assert chunks("line", "a\r\nb\rc\nd\r") == ["a\r\n", "b\r", "c\n", "d\r"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\nb\n\n  c\n", ["a\nb\n\n", "  c\n"]),
        ("a\n \t\n\nb", ["a\n \t\n\n", "b"]),
        ("a\r\n\r\nb", ["a\r\n\r\n", "b"]),
        ("a\n\n", ["a\n\n"]),
    ],
)
def test_paragraphs_end_behind_blank_lines_and_keep_indentation(
    text: str, expected: list[str]
) -> None:
    assert chunks("paragraph", text) == expected


@pytest.mark.parametrize("unit", sorted(FINDERS))
def test_finder_finds_nothing_in_no_text(unit: str) -> None:
    assert FINDERS[unit]("en")("") == 0
