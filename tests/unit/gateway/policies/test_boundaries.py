from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.policies.boundaries import FINDERS

code_points = st.characters(codec="utf-8")
"""All of Unicode but surrogates, which no text holds."""
texts = st.lists(
    code_points
    | st.sampled_from("A. C\n.!?\"'(,;。「\x85\xa0\u1680\u2003\u2028\u3000\u200d\u0301"),
    max_size=24,
).map("".join)


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
        ("Take Vitamin C\u00a0. It helps.", ["Take Vitamin C\u00a0. ", "It helps."]),
        ("Plan B\u3000. It works.", ["Plan B\u3000. ", "It works."]),
        ("It ends here.\u2003Next one.", ["It ends here.\u2003", "Next one."]),
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


@settings(max_examples=300)
@given(
    text=texts, unit=st.sampled_from(sorted(FINDERS)), locale=st.sampled_from(("en", "de", "ja"))
)
def test_finder_cuts_any_text_without_losing_any_of_it(text: str, unit: str, locale: str) -> None:
    assert "".join(chunks(unit, text, locale)) == text


def test_sentences_of_every_whitespace_are_found_by_sentencex(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Its panic would be printed, however well it is caught."""
    for space in filter(str.isspace, map(chr, range(0x110000))):
        assert chunks("sentence", f"Vitamin C{space}. And more")[-1].endswith("more")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("failure", [BaseException("a panic"), None])
def test_sentences_are_found_by_icu_where_sentencex_fails(
    monkeypatch: pytest.MonkeyPatch, failure: BaseException | None
) -> None:
    def broken(_language: str, text: str) -> list[str]:
        if failure is not None:
            raise failure
        return [text[1:]]  # loses a character

    monkeypatch.setattr("gateway.policies.boundaries._sentencex", broken)
    assert chunks("sentence", "It is so. Then it was.") == ["It is so. ", "Then it was."]
