from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.base import BackendEvent, Finished, PartBegins, TokenCounts, Verified
from gateway.backends.openai.answers import Answer
from protocol.events import Token
from tests.unit.gateway.backends.openai.bodies import DONE, call, chunk, event, text, usage

if TYPE_CHECKING:
    from collections.abc import Iterable

Parts = list[tuple[str, str | None, str]]

CHAT = [
    b": keep-alive\r\n\r\n",
    chunk({"role": "assistant", "content": ""}),
    chunk({"reasoning_content": "Hm, a lighthouse"}),
    chunk({"reasoning_content": "… 灯台."}),
    chunk({"content": "A light"}),
    chunk({"content": "house 👩‍🚒 stands."}),
    call(0, "look", ""),
    call(0, None, '{"at": '),
    call(0, None, '"sea"}'),
    call(1, "ring", "{}"),
    chunk({}, "tool_calls"),
    usage(7, 19, prompt_tokens_details={"cached_tokens": 4}),
    DONE,
]
CHAT_PARTS: Parts = [
    ("text", None, ""),
    ("reasoning", None, "Hm, a lighthouse… 灯台."),
    ("text", None, "A lighthouse 👩‍🚒 stands."),
    ("tool_call", "look", '{"at": "sea"}'),
    ("tool_call", "ring", "{}"),
]


def fed(pieces: Iterable[bytes]) -> tuple[Answer, list[BackendEvent]]:
    answer = Answer()
    events = [event for piece in pieces for event in answer.feed(piece)]
    return answer, events


def parts_of(events: Iterable[BackendEvent]) -> Parts:
    parts: Parts = [("text", None, "")]
    for each in events:
        match each:
            case PartBegins(kind=kind, name=name):
                parts.append((str(kind), name, ""))
            case Verified(text=said):
                parts[-1] = (*parts[-1][:2], parts[-1][2] + said)
            case _:
                pass
    return parts


def test_answer_says_the_same_wherever_its_bytes_are_split() -> None:
    whole = b"".join(CHAT)
    counts = TokenCounts(prompt=7, cached_prompt=4, completion=19)
    for cut in range(len(whole) + 1):
        answer, events = fed([whole[:cut], whole[cut:]])
        assert answer.failure is None
        assert parts_of(events) == CHAT_PARTS
        assert events[-1] == Finished("tool_calls", counts)
        assert sum(isinstance(each, Finished) for each in events) == 1


@given(st.lists(st.integers(0, len(b"".join(CHAT))), max_size=12))
def test_answer_says_the_same_in_any_pieces(cuts: list[int]) -> None:
    whole = b"".join(CHAT)
    ends = [*sorted(cuts), len(whole)]
    pieces = [whole[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    _, events = fed(pieces)
    assert parts_of(events) == CHAT_PARTS
    assert isinstance(events[-1], Finished)


@pytest.mark.parametrize(
    ("arguments", "reason"), [(['{"at": ', '"sea"}'], "tool_calls"), (['{"at": '], "stop")]
)
def test_answer_with_a_call_that_is_whole_ends_with_it_though_the_upstream_says_stop(
    arguments: list[str], reason: str
) -> None:
    pieces = [call(0, "look"), *(call(0, None, each) for each in arguments)]
    details = {"completion_tokens_details": {"reasoning_tokens": 2}}
    _, events = fed([*pieces, chunk({}, "stop"), usage(7, 19, **details), DONE])
    assert events[-1] == Finished(reason, TokenCounts(prompt=7, completion=19, reasoning=2))


def test_answer_that_breaks_off_is_a_beginning_and_never_passes_for_whole() -> None:
    whole = b"".join(CHAT)
    expected = "".join(part[2] for part in CHAT_PARTS)
    for end in range(len(whole) + 1):
        answer, events = fed([whole[:end]])
        events += answer.end()
        said = "".join(part[2] for part in parts_of(events))
        assert expected.startswith(said)
        if any(isinstance(each, Finished) for each in events):
            assert said == expected and answer.failure is None
        else:
            assert answer.failure is not None


def test_answer_is_whole_without_usage_and_done_once_its_reason_is_known() -> None:
    answer, events = fed([text("a b"), text(" c", "length")])
    assert answer.end() == [Finished("length", TokenCounts(completion=2))]
    assert [each for each in events if isinstance(each, Verified)] == [
        Verified("a b"),
        Verified(" c"),
    ]


def test_text_that_comes_together_is_one_event() -> None:
    _, events = fed([text("a") + text("b") + text("c", "stop") + DONE])
    assert events == [Verified("abc"), Finished("stop", TokenCounts(completion=3))]


@pytest.mark.parametrize(
    ("last", "failure"),
    [
        (DONE, "without a reason"),
        (b"data: {oops\n\n", "no chunk"),
        (event({"choices": [{"index": 0, "text": 7}]}), "no chunk"),
        (b'data: {"choices": [{"text": "\\ud800"}]}\n\n', "no chunk"),
        (b"data: \xff\n\n", "UTF-8"),
        (event({"error": {"message": "out of memory", "code": 500}}), "out of memory"),
        (chunk({}, "abort"), "gave up"),
        (call(0), "without a name"),
        (call(2, "f", "{}") + call(1, "g", "{}"), "earlier tool call"),
        (chunk({"content": "x"}, "stop") + chunk({"content": "more"}), "after its end"),
    ],
)
def test_answer_keeps_what_came_before_a_fault_and_nothing_after(last: bytes, failure: str) -> None:
    answer, events = fed(
        [chunk({"content": "good"}), last, chunk({"content": "bad"}, "stop"), DONE]
    )
    assert answer.failure is not None and failure in answer.failure
    assert "".join(part[2] for part in parts_of(events)).startswith("good")
    assert "bad" not in str(events)
    assert not any(isinstance(each, Finished) for each in [*events, *answer.end()])


@pytest.mark.parametrize(
    ("code", "final"), [(400, True), (429, False), (503, False), (None, False)]
)
def test_answer_that_was_refused_in_the_middle_says_whether_to_ask_again(
    code: int | None, final: bool
) -> None:
    answer, _ = fed([event({"error": {"message": "no", "code": code}})])
    assert answer.is_final is final


def scored(*tokens: tuple[int | None, str, bytes]) -> dict[str, object]:
    content = [
        {"id": id_, "token": name, "bytes": list(data), "logprob": -0.5}
        for id_, name, data in tokens
    ]
    return {"content": content}


def test_tokens_are_told_with_the_text_they_complete() -> None:
    boat = "⛵".encode()
    answer, events = fed(
        [
            chunk({"content": "go "}, logprobs=scored((5, "go ", b"go "))),
            chunk({"content": ""}, logprobs=scored((6, "?", boat[:2])))
            + chunk({"content": "⛵"}, logprobs=scored((7, "?", boat[2:]))),
        ]
    )
    assert events == [
        Verified("go ", tokens=[Token(5, 3, -0.5)]),
        Verified("⛵", tokens=[Token(6, 0, -0.5), Token(7, 1, -0.5)]),
    ]
    assert answer.tokens == 3


def test_tokens_that_do_not_cover_the_text_are_left_out() -> None:
    _, events = fed([chunk({"content": "go on"}, logprobs=scored((5, "go", b"go")))])
    assert events == [Verified("go on")]
    _, events = fed([chunk({"content": "go"}, logprobs=scored((None, "go", b"go")))])
    assert events == [Verified("go")]


def test_ids_of_tokens_may_stand_beside_their_logprobs() -> None:
    logprobs = scored((None, "go", b"go"))
    _, events = fed([chunk({"content": "go"}, logprobs=logprobs, token_ids=[9])])
    assert events == [Verified("go", tokens=[Token(9, 2, -0.5)])]
