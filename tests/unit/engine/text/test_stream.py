from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import EngineRequestError
from engine.text.detokenizer import TokenTable
from engine.text.stream import TextStream, VerifiedText
from protocol.events import Token as LedgerToken
from protocol.ledger import Ledger
from tests.unit.engine.checkpoints import byte_level_tokenizer

if TYPE_CHECKING:
    from engine.frames import Token

BYTES = byte_level_tokenizer()
TOKENIZER = byte_level_tokenizer()
TOKENIZER.add_tokens(["ab", "a☕b", " stop", "p! ", "<br>"])  # pyright: ignore[reportUnknownMemberType]
TABLE = TokenTable(TOKENIZER)
WORDS = [2 + 256 + i for i in range(5)]
STOPS = st.lists(st.sampled_from(["b", "ba", "☕", "stop!", "p! a", "a☕ba", "<br>"]), max_size=3)
TOKENS = st.lists(
    st.one_of(
        st.sampled_from(WORDS),
        st.sampled_from("ab sto!").map(lambda c: BYTES.encode(c).ids[0]),
        st.integers(0, 257),
    ),
    max_size=24,
)


def ids(text: str) -> list[int]:
    """One token per byte."""
    return BYTES.encode(text).ids


def ledger_tokens(tokens: list[Token]) -> list[LedgerToken]:
    """As the gateway decodes them."""
    return [LedgerToken(t.id, t.n, t.logprob, t.confidence) for t in tokens]


def n(tokens: list[Token]) -> list[int]:
    return [token.n for token in tokens]


def stream(*stops: str) -> TextStream:
    return TextStream(TABLE, stops)


def outcome(stops: list[str], tokens: list[int]) -> tuple[str, list[int]]:
    """Committed text and reported tokens when verified one by one, without drafts."""
    text = TextStream(TABLE, stops)
    said, reported = "", list[int]()
    for token in tokens:
        verified = text.verify([token])
        said += verified.text
        reported += [t.id for t in verified.tokens]
        if verified.stopped:
            return said, reported
    rest = text.finish()
    return said + rest.text, reported + [t.id for t in rest.tokens]


@given(STOPS, TOKENS, st.data())
def test_stream_commits_the_same_whatever_the_grouping_and_the_drafts(
    stops: list[str], tokens: list[int], data: st.DataObject
) -> None:
    """Driven as an engine does, into a ledger, which checks tokens against text and causes."""
    text, ledger = TextStream(TABLE, stops), Ledger()
    reported: list[int] = []

    def take(verified: VerifiedText) -> None:
        assert sum(n(verified.tokens)) == len(verified.text)
        ledger.verify(verified.text, verified.tail, ledger_tokens(verified.tokens), verified.cause)
        reported.extend(token.id for token in verified.tokens)

    start = 0
    while start < len(tokens) and not text.stopped:
        end = start + data.draw(st.integers(1, 5))
        wrong = data.draw(st.lists(st.sampled_from(WORDS), max_size=2))
        draft = [*tokens[start : data.draw(st.integers(start, end))], *wrong]
        if draft and data.draw(st.booleans()):
            tail, marks = text.draft(draft, [0.5] * len(draft))
            ledger.draft(tail, ledger_tokens(marks))
        take(text.verify(tokens[start:end]))
        start = end
    take(text.finish())
    assert ledger.current.tail == ""
    assert (ledger.current.committed_text(), reported) == outcome(stops, tokens)


@given(STOPS, TOKENS, st.data())
def test_stream_ends_the_same_when_resumed_from_what_was_reported(
    stops: list[str], tokens: list[int], data: st.DataObject
) -> None:
    first = TextStream(TABLE, stops)
    cut = data.draw(st.integers(0, len(tokens)))
    verified = first.verify(tokens[:cut])
    done = [token.id for token in verified.tokens]
    second = TextStream(TABLE, stops)
    second.resume(done, len(verified.text))
    assert second.stopped == first.stopped
    rest = second.verify(tokens[len(done) :])
    end = second.finish()
    said = verified.text + rest.text + end.text
    assert (said, [*done, *(t.id for t in [*rest.tokens, *end.tokens])]) == outcome(stops, tokens)


def test_stream_holds_back_a_token_whose_end_could_begin_a_stop_string() -> None:
    text = stream("b!")
    held = text.verify([*ids("x"), WORDS[0]])
    assert (held.text, held.tail, n(held.tokens)) == ("x", "ab", [1])
    released = text.verify(ids("c"))
    assert (released.text, released.tail, n(released.tokens)) == ("abc", "", [2, 1])


def test_stream_counts_only_text_before_a_stop_string_that_begins_inside_a_token() -> None:
    text = stream("b!")
    text.verify([WORDS[0]])
    stopped = text.verify([*ids("!"), *ids("more")])
    assert (stopped.text, stopped.tail, stopped.stopped) == ("a", "", True)
    assert (stopped.consumed, n(stopped.tokens)) == (1, [1, 0])
    assert stopped.cause == "stop_sequence"
    assert text.verify(ids("x")) == VerifiedText("", "", None, [], 0, True)
    assert text.finish().text == ""


def test_stream_holds_back_the_last_token_while_its_code_point_is_incomplete() -> None:
    text = stream()
    euro = ids("€")
    part = text.verify([*ids("a"), *euro[:2]])
    assert (part.text, part.tail, n(part.tokens)) == ("a", "", [1, 0])
    whole = text.verify(euro[2:])
    assert (whole.text, n(whole.tokens)) == ("€", [0, 1])


def test_stream_flushes_held_text_and_incomplete_bytes_when_finished() -> None:
    text = stream("ab!")
    text.verify([WORDS[0], *ids("☕")[:2]])
    end = text.finish()
    assert (end.text, end.tail, n(end.tokens)) == ("ab\ufffd", "", [2, 0, 1])


def test_stream_explains_a_rejected_draft() -> None:
    text = stream()
    assert text.draft(ids("abc"), [0.9, 0.6, 0.3])[0] == "abc"
    assert text.verify(ids("ax")).cause == "draft_rejected"


def test_stream_needs_no_cause_when_the_draft_was_right() -> None:
    text = stream()
    text.draft(ids("ab"), [0.9, 0.6])
    assert text.verify(ids("abc")).cause is None


def test_stream_blames_the_stop_string_when_the_draft_agreed_with_it() -> None:
    text = stream("b")
    text.draft(ids("abc"), [0.9, 0.6, 0.3])
    assert text.verify(ids("abc")).cause == "stop_sequence"


def test_stream_blames_the_draft_when_it_was_wrong_before_the_stop_string() -> None:
    text = stream("b")
    text.draft(ids("xyz"), [0.9, 0.6, 0.3])
    assert text.verify(ids("ab")).cause == "draft_rejected"


def test_stream_says_why_drafted_text_vanishes_when_finished() -> None:
    text = stream()
    text.draft(ids("abc"), [0.9, 0.6, 0.3])
    assert text.finish("cancelled").cause == "cancelled"


def test_stream_marks_each_drafted_token_with_its_own_chance() -> None:
    text = stream("x!")
    text.verify(ids("x"))
    tail, marks = text.draft(ids("abc"), [0.8, 0.4, 0.0])
    assert tail == "xabc"
    assert [mark.confidence for mark in marks] == pytest.approx([1.0, 0.8, 0.5, 0.0])
    assert text.draft(ids("ab"), [0.0, 0.0])[1][-1].confidence == 0.0


def test_stream_passes_logprobs_on_with_the_tokens_they_belong_to() -> None:
    text = stream("b!")
    text.verify(ids("ab"), [-1.0, -2.0])
    released = text.verify(ids("c"), [-3.0])
    assert [token.logprob for token in released.tokens] == [-2.0, -3.0]


def test_stream_refuses_to_resume_tokens_that_do_not_stand_for_the_text() -> None:
    with pytest.raises(EngineRequestError, match="3 code points, not 2"):
        stream().resume(ids("abc"), 2)


def test_stream_finishes_a_code_point_that_was_incomplete_when_resumed() -> None:
    cup = ids("☕")
    for rest, text in ((cup[1:], "☕"), ([], "\ufffd")):
        resumed = stream()
        resumed.resume(cup[:1], 0)
        assert resumed.verify(rest).text + resumed.finish().text == text
