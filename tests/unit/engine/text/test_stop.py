from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import EngineRequestError
from engine.text.stop import MAX_STOP_LENGTH, StopMatcher

FEW_LETTERS = st.text("ab☕", max_size=30)
STOPS = st.lists(st.text("ab☕", min_size=1, max_size=5), max_size=4)


def expected(text: str, stops: list[str]) -> tuple[str, bool]:
    """By definition: the shortest text that ends with a stop string, less the longest of these."""
    for end in range(1, len(text) + 1):
        matches = [stop for stop in stops if text[:end].endswith(stop)]
        if matches:
            return text[: end - max(map(len, matches))], True
    return text, False


def run(stops: list[str], chunks: list[str]) -> tuple[str, bool]:
    matcher = StopMatcher(stops)
    emitted = "".join(matcher.feed(chunk)[0] for chunk in chunks)
    return emitted + matcher.flush(), matcher.matched


@given(STOPS, st.lists(st.text("ab☕", max_size=6), max_size=8))
def test_matcher_finds_what_the_definition_says_whatever_the_chunks(
    stops: list[str], chunks: list[str]
) -> None:
    assert run(stops, chunks) == expected("".join(chunks), stops)


@given(STOPS, FEW_LETTERS)
def test_matcher_holds_back_exactly_the_longest_beginning_of_a_stop(
    stops: list[str], text: str
) -> None:
    matcher = StopMatcher(stops)
    for i, character in enumerate(text):
        if matcher.feed(character)[1]:
            return
        seen = text[: i + 1]
        beginnings = [n for stop in stops for n in range(1, len(stop)) if seen.endswith(stop[:n])]
        assert matcher.held == seen[len(seen) - max(beginnings, default=0) :]


def test_matcher_emits_nothing_more_after_a_match() -> None:
    matcher = StopMatcher(["END"])
    assert matcher.feed("abENDcd") == ("ab", True)
    assert matcher.feed("more") == ("", True)
    assert (matcher.held, matcher.flush()) == ("", "")


def test_matcher_prefers_the_match_that_is_complete_first() -> None:
    assert run(["abcd", "bc"], ["abcd"]) == ("a", True)
    assert run(["bc", "abc"], ["abcd"]) == ("", True)


def test_matcher_passes_everything_through_without_stops() -> None:
    matcher = StopMatcher([])
    assert matcher.feed("text") == ("text", False)
    assert matcher.held == ""


def test_matcher_refuses_an_empty_stop_string() -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        StopMatcher(["a", ""])


def test_matcher_refuses_a_stop_string_that_is_too_long() -> None:
    StopMatcher(["a" * MAX_STOP_LENGTH])
    with pytest.raises(EngineRequestError, match=f"at most {MAX_STOP_LENGTH}") as caught:
        StopMatcher(["b", "a" * (MAX_STOP_LENGTH + 1)])
    assert (caught.value.code, caught.value.param) == ("invalid_value", "stop[1]")
