from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.base import (
    BackendEvent,
    Drafted,
    Failed,
    Finished,
    PartBegins,
    TokenCounts,
    Verified,
)
from gateway.streams.calls import CallReader

ARGUMENTS = '{"at": {"hour": 12}, "place": "Brest }"}'
CALL = f'{{"name": "high_tide", "arguments": {ARGUMENTS}}}'
COUNTS = TokenCounts(completion=9)


def read(*events: BackendEvent) -> list[BackendEvent]:
    told: list[BackendEvent] = []
    reader = CallReader(told.append)
    for event in events:
        reader(event)
    return told


def text_of(told: list[BackendEvent]) -> str:
    return "".join(event.text for event in told if isinstance(event, Verified))


@given(st.sets(st.integers(1, len(CALL) - 1)))
def test_call_becomes_a_part_however_its_text_is_cut(cuts: set[int]) -> None:
    places = [0, *sorted(cuts), len(CALL)]
    pieces = [CALL[a:b] for a, b in zip(places, places[1:], strict=False)]
    told = read(*(Verified(piece) for piece in pieces), Finished("stop", COUNTS))
    assert told[0] == PartBegins("tool_call", "high_tide")
    assert told[-1] == Finished("tool_calls", COUNTS)
    assert text_of(told) == ARGUMENTS


def test_nothing_tentative_of_a_call_passes() -> None:
    told = read(
        Drafted('{"name": "low'),
        Verified('{"name": "high_tide", "arguments": {', tail="x", cause="draft_rejected"),
        Drafted('"at"'),
        Verified("}}"),
        Finished("stop"),
    )
    assert told == [
        PartBegins("tool_call", "high_tide"),
        Verified("{"),
        Verified("}"),
        Finished("tool_calls"),
    ]


def test_call_that_was_cut_short_keeps_its_reason_and_all_its_text() -> None:
    told = read(Verified(CALL[:-1]), Finished("length"))
    assert (told[-1], text_of(told)) == (Finished("length"), ARGUMENTS)


@pytest.mark.parametrize("text", ["Once upon a time", '{"name": "two words", ' + "x" * 200])
def test_text_that_is_no_call_passes_as_it_is(text: str) -> None:
    told = read(Verified(text[:5]), Verified(text[5:], tail="!"), Verified("!"), Finished("stop"))
    assert text_of(told) == text + "!"
    assert told[-1] == Finished("stop")
    assert not any(isinstance(event, PartBegins) for event in told)


def test_header_that_never_ends_passes_at_the_end() -> None:
    told = read(Verified('{"name": "hi'), Finished("length"))
    assert told == [Verified('{"name": "hi'), Finished("length")]


def test_failure_passes() -> None:
    assert read(Verified(CALL), Failed("engine_failed", "x"))[-1] == Failed("engine_failed", "x")
