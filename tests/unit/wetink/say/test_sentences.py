"""Committed text becomes sentences: all of it, in order, none of them cut inside a word."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import example, given
from hypothesis import strategies as st

from protocol import units
from protocol.events import OffsetUnit
from wetink.say.sentences import Sentence, Sentences

if TYPE_CHECKING:
    import pytest

TEXT = st.text(st.sampled_from("Ab. ?!\n。é👩\u200d\xa0"), max_size=60)


def cut(*commits: str, unit: OffsetUnit = OffsetUnit.CODEPOINT) -> list[str]:
    sentences = Sentences("en-GB", unit)
    at = 0
    cuts: list[Sentence] = []
    for text in commits:
        cuts += sentences.commit(0, at, text)
        at += units.length(text, unit)
    return [sentence.text for sentence in cuts + sentences.end()]


def test_commit_of_one_sentence_is_said_as_it_stands() -> None:
    assert Sentences("en", OffsetUnit.CODEPOINT).commit(0, 3, "Dr. Smith paid 3.14 dollars. ") == [
        Sentence(0, 3, "Dr. Smith paid 3.14 dollars. ")
    ]


def test_merged_commits_are_split_into_their_sentences() -> None:
    text = "A story\n\nDr. Smith left. He said “Go.” Then 你好。世界。"
    assert cut(text) == [
        "A story\n\n",
        "Dr. Smith left. ",
        "He said “Go.” ",
        "Then 你好。",
        "世界。",
    ]


def test_word_that_may_go_on_waits_for_its_rest() -> None:
    sentences = Sentences("en", OffsetUnit.CODEPOINT)
    assert [s.text for s in sentences.commit(0, 0, "The light")] == ["The "]
    assert [s.text for s in sentences.commit(0, 9, "house stood")] == ["lighthouse "]
    assert [s.text for s in sentences.end()] == ["stood"]
    assert sentences.end() == []


def test_sentence_that_may_be_over_waits_for_what_follows() -> None:
    sentences = Sentences("en", OffsetUnit.CODEPOINT)
    assert [s.text for s in sentences.commit(0, 0, "He left. It costs 3.")] == ["He left. "]
    assert [s.text for s in sentences.commit(0, 20, "14 dollars.")] == []
    assert [s.text for s in sentences.end()] == ["It costs 3.14 dollars."]


def test_next_part_ends_the_one_before_and_has_offsets_of_its_own() -> None:
    sentences = Sentences("en", OffsetUnit.UTF16)
    assert sentences.commit(0, 7, "👩 left") == [Sentence(0, 7, "👩 ")]
    assert sentences.commit(2, 0, "Well. ") == [Sentence(0, 10, "left"), Sentence(2, 0, "Well. ")]


def test_text_that_the_library_panics_at_is_said_whole(capfd: pytest.CaptureFixture[str]) -> None:
    assert "".join(cut("Vitamin C\xa0. More of it. ")) == "Vitamin C\xa0. More of it. "
    assert "panicked" not in capfd.readouterr().err


@given(st.lists(TEXT, max_size=6), st.sampled_from(OffsetUnit))
@example(["\n", "\n", "A"], OffsetUnit.CODEPOINT)
def test_sentences_are_the_text_whatever_its_commits(commits: list[str], unit: OffsetUnit) -> None:
    text = "".join(commits)
    pieces = cut(*commits, unit=unit)
    assert "".join(pieces) == text
    assert all(pieces)
    for before, after in zip(pieces, pieces[1:], strict=False):
        assert before[-1].isspace() or before[-1] in "。？！.?!" or after[0].isspace()


@given(st.lists(TEXT, max_size=6), st.sampled_from(OffsetUnit))
def test_sentence_knows_its_place_in_the_text(commits: list[str], unit: OffsetUnit) -> None:
    sentences = Sentences("en", unit)
    at = 5
    cuts: list[Sentence] = []
    for text in commits:
        cuts += sentences.commit(0, at, text)
        at += units.length(text, unit)
    reached = 5
    for sentence in cuts + sentences.end():
        assert sentence.at == reached
        reached += units.length(sentence.text, unit)
    assert reached == at
