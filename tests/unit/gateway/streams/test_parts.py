from __future__ import annotations

import msgspec
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
from gateway.parts import Dialect, Parser
from gateway.streams.parts import PartsReader
from protocol.events import Token, Usage
from protocol.ledger import Ledger

ARGUMENTS = '{"at": {"hour": 12}, "place": "Brest }"}'
CALL = f'<tool_call>\n{{"name": "high_tide", "arguments": {ARGUMENTS}}}\n</tool_call>'
ANSWER = f"<think>\nHm, the tide.\n</think>\n\nI will <b>look</b>: {CALL}"
COUNTS = TokenCounts(completion=9)


def read(*events: BackendEvent) -> list[BackendEvent]:
    told: list[BackendEvent] = []
    reader = PartsReader(told.append, Parser(Dialect(thinks="marked"), {"high_tide"}))
    for event in events:
        reader(event)
    return told


def ledger_of(told: list[BackendEvent]) -> Ledger:
    """What a stream makes of it; raises where that breaks the ledger's rules."""
    ledger = Ledger()
    for event in told:
        match event:
            case Verified():
                ledger.verify(event.text, event.tail, event.tokens, event.cause)
            case Drafted():
                ledger.draft(event.tail, event.tokens, event.cause)
            case PartBegins():
                ledger.begin_part(event.kind, event.name)
            case Finished():
                ledger.finish(event.reason, Usage())
            case Failed():
                ledger.fail(event.code, event.message, event.retryable)
    return ledger


@given(st.data())
def test_parts_and_their_tokens_are_the_same_however_the_text_comes(data: st.DataObject) -> None:
    """Tokens of any length, drafts right and wrong: the ledger checks that tokens cover texts, and
    that what vanishes is explained.
    """
    cuts = data.draw(st.sets(st.integers(1, len(ANSWER) - 1), max_size=40))
    places = [0, *sorted(cuts), len(ANSWER)]
    events: list[BackendEvent] = []
    pieces = [ANSWER[a:b] for a, b in zip(places, places[1:], strict=False)]
    for number, piece in enumerate(pieces):
        rest = "".join(pieces[number:])
        right = data.draw(st.integers(0, min(len(rest), 30)))
        tail = rest[:right] + data.draw(st.sampled_from(["", "wrong", "<tool", "\n"]))
        events.append(Drafted(tail, cause="draft_rejected"))
        events.append(Verified(piece, cause="draft_rejected", tokens=[Token(number, len(piece))]))
    told = read(*events, Finished("stop", COUNTS))
    parts = ledger_of(told).parts
    assert [(part.kind, part.name) for part in parts] == [
        ("text", None),
        ("reasoning", None),
        ("text", None),
        ("tool_call", "high_tide"),
    ]
    texts = ["", "Hm, the tide.\n", "I will <b>look</b>: ", ARGUMENTS]
    assert [part.committed_text() for part in parts] == texts
    for part in (parts[1], parts[2]):
        assert sum(token.n for token, _ in part.tokens(0, 1000)) == part.committed_length
    first, last = len("<think>\n"), ANSWER.index("</think>")
    spans = zip(places, places[1:], strict=False)
    reasoning = sum(begin < last and end > first for begin, end in spans)
    counts = msgspec.structs.replace(COUNTS, reasoning=reasoning)
    assert told[-1] == Finished("tool_calls", counts)


def test_nothing_tentative_of_a_call_passes() -> None:
    told = read(
        Verified("Look: "),
        Drafted('at <tool_call>{"name": "low'),
        Verified('<tool_call>{"name": "high_tide", "arguments": {', cause="draft_rejected"),
        Drafted('"at"'),
        Verified("}}"),
        Finished("stop"),
    )
    assert told == [
        Verified("Look: "),
        Drafted("at "),
        Verified("", cause="draft_rejected"),
        PartBegins("tool_call", "high_tide"),
        Verified("{"),
        Verified("}"),
        Finished("tool_calls"),
    ]


@pytest.mark.parametrize("reason", ["length", "stop"])
def test_call_that_was_cut_short_keeps_its_reason_and_all_its_text(reason: str) -> None:
    told = read(Verified('<tool_call>{"name": "high_tide", "arguments": {"a"'), Finished(reason))
    assert told[-2:] == [Verified('{"a"'), Finished(reason)]


def test_parts_that_a_backend_tells_itself_pass_as_they_are() -> None:
    events: list[BackendEvent] = [
        PartBegins("reasoning"),
        Drafted("<think>"),
        Verified("<tool_call>"),
        Finished("stop"),
    ]
    assert read(*events) == events


def test_failure_passes() -> None:
    assert read(Verified(CALL), Failed("engine_failed", "x"))[-1] == Failed("engine_failed", "x")
