from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.base import BackendEvent, Finished, PartBegins, Verified
from gateway.backends.openai.continuation import Comparison, Mismatch, Told, way_on
from gateway.backends.openai.dialects import DIALECTS
from gateway.backends.openai.requests import Asked

CALL = PartBegins("tool_call", "f")
EVENTS: list[BackendEvent] = [
    Verified("Let me "),
    Verified("look. "),
    CALL,
    Verified('{"a"'),
    Verified(": 1}"),
    Finished("tool_calls"),
]


def told(*events: BackendEvent) -> Told:
    so_far = Told()
    for event in events:
        so_far.add(event)
    return so_far


def text_of(events: list[BackendEvent]) -> str:
    """Text and parts, one after the other."""
    said = ""
    for event in events:
        match event:
            case Verified(text=text):
                said += text
            case PartBegins():
                said += f"<{event.kind} {event.name}>"
            case _:
                pass
    return said


@given(st.integers(0, len(EVENTS) - 1), st.integers(1, 7))
def test_repeated_answer_adds_what_was_not_told_however_it_is_cut(count: int, size: int) -> None:
    first = EVENTS[:count]
    again: list[BackendEvent] = []
    for event in EVENTS:
        if isinstance(event, Verified):
            text = event.text
            again += [Verified(text[at : at + size]) for at in range(0, len(text), size)]
        else:
            again.append(event)
    new = Comparison(told(*first)).pass_on(again)
    assert text_of([*first, *new]) == text_of(EVENTS)
    assert new[-1] == Finished("tool_calls")


@pytest.mark.parametrize(
    "again",
    [
        [Verified("Let us ")],
        [Verified("Let me "), Finished("stop")],
        [Verified("Let me "), CALL],
        [Verified("Let me look. "), PartBegins("tool_call", "g")],
        [Verified("Let me look. more")],
        [Verified("Let me look. "), CALL, Verified('{"b"')],
    ],
)
def test_repeated_answer_that_says_something_else_is_found_out(again: list[BackendEvent]) -> None:
    with pytest.raises(Mismatch):
        Comparison(told(*EVENTS[:5])).pass_on(again)


RAW = Asked("/completions", {"prompt": "Hi", "seed": 1})
CHAT = Asked("/chat/completions", {"messages": [], "seed": 1})
NO_SEED = Asked("/chat/completions", {"messages": []})


@pytest.mark.parametrize(
    ("ways", "asked", "dialect", "so_far", "expected"),
    [
        (["prefix", "repeat"], RAW, "openai", told(Verified("a")), "prefix"),
        (["repeat", "prefix"], RAW, "openai", told(Verified("a")), "repeat"),
        (["prefix", "repeat"], CHAT, "openai", told(Verified("a")), "repeat"),
        (["prefix", "repeat"], CHAT, "vllm", told(Verified("a")), "prefix"),
        (["prefix", "repeat"], CHAT, "vllm", told(Verified("a"), CALL), "repeat"),
        (["prefix", "repeat"], NO_SEED, "openai", told(Verified("a")), None),
        ([], RAW, "openai", told(Verified("a")), None),
        ([], RAW, "openai", told(), "anew"),
    ],
)
def test_way_on_is_the_first_that_can_be(
    ways: list[str], asked: Asked, dialect: str, so_far: Told, expected: str | None
) -> None:
    way = way_on(ways, asked, DIALECTS[dialect], so_far, 1)  # type: ignore[arg-type]
    match way:
        case None:
            found = None
        case (further, None):
            found = "anew" if further == asked else "prefix"
        case (further, Comparison()):
            found = "repeat"
            assert further == asked
    assert found == expected
