from __future__ import annotations

import gc
import random
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from engine.drafters.suffix_automaton import START, UNMATCHED, Match, SuffixAutomaton


def occurrences(texts: list[list[int]], piece: list[int]) -> list[tuple[int, int]]:
    """(text, end) wherever `piece` lies in `texts`."""
    size = len(piece)
    return [
        (number, end)
        for number, text in enumerate(texts)
        for end in range(size, len(text) + 1)
        if text[end - size : end] == piece
    ]


def longest_end(texts: list[list[int]], read: list[int]) -> list[int]:
    for start in range(len(read)):
        if occurrences(texts, read[start:]):
            return read[start:]
    return []


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=60), st.data())
def test_reader_follows_longest_end_that_occurs_while_texts_grow(
    written: list[tuple[int, int]], data: st.DataObject
) -> None:
    """Three texts grow in turns; a fourth one is read beside them."""
    automaton = SuffixAutomaton()
    numbers = [automaton.begin() for _ in range(3)]
    ends = [START] * 3
    texts: list[list[int]] = [[], [], []]
    read: list[int] = []
    match = UNMATCHED
    for which, token in written:
        ends[which] = automaton.extend(numbers[which], ends[which], token)
        texts[which].append(token)
        before = longest_end(texts, read)
        heard = data.draw(st.integers(0, 2))
        # An end that occurs only since it was read is not looked for again.
        tracked = read[len(read) - match.length :]
        match = automaton.follow(match, heard)
        read.append(heard)
        assert match.length <= len(before) + 1
        assert read[len(read) - match.length :] == longest_end(texts, [*tracked, heard])
        if match.length:
            copied = automaton.copy(match, 4)
            places = occurrences(texts, read[-match.length :])
            assert copied in [texts[number][end : end + 4] for number, end in places]


def test_text_is_found_whole_and_goes_on_where_it_first_occurred() -> None:
    automaton = SuffixAutomaton()
    for text in ([1, 2, 3, 4, 5], [9, 2, 3, 7, 7]):
        number, state = automaton.begin(), START
        for token in text:
            state = automaton.extend(number, state, token)
    match = UNMATCHED
    for token in (8, 2, 3):
        match = automaton.follow(match, token)
    assert match.length == 2
    assert automaton.copy(match, 8) == [4, 5]
    assert automaton.copy(automaton.follow(match, 7), 8) == [7]
    assert automaton.follow(match, 6) == Match(START, 0)


def test_bytes_are_about_what_is_really_held() -> None:
    dice = random.Random(1)
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    automaton = SuffixAutomaton()
    for _ in range(20):
        number, state = automaton.begin(), START
        for _ in range(500):
            # Few words are frequent, many are rare, as in texts.
            token = int(40000 * dice.random() ** 4)
            state = automaton.extend(number, state, token)
    gc.collect()
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert 0.5 * automaton.bytes < held < automaton.bytes
