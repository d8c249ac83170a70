"""Ledger: each invariant by its name, and what policies read. Order of calls: tests/stateful."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from protocol.errors import LedgerError
from protocol.events import Token, Usage
from protocol.ledger import Completed, Failed, Ledger

if TYPE_CHECKING:
    from collections.abc import Callable


def token(number: int, n: int, confidence: float | None = None) -> Token:
    return Token(number, n, None, confidence)


def begun() -> Ledger:
    """Committed "One ", tail "two"."""
    ledger = Ledger()
    ledger.verify("One ")
    ledger.draft("two")
    return ledger


MISUSES: list[tuple[str, Callable[[Ledger], None]]] = [
    ("explained_rewrite", lambda ledger: ledger.draft("tw")),
    ("explained_rewrite", lambda ledger: ledger.draft("three")),
    ("explained_rewrite", lambda ledger: ledger.verify("three")),
    ("explained_rewrite", lambda ledger: ledger.verify("t", "x")),
    ("whole_code_points", lambda ledger: ledger.draft("two\ud800")),
    ("whole_code_points", lambda ledger: ledger.verify("two\udc00")),
    ("whole_code_points", lambda ledger: ledger.verify("two", "\ud83d")),
    ("empty_tail", lambda ledger: ledger.finish("stop", Usage())),
    ("empty_tail", lambda ledger: ledger.begin_part("text")),
    ("tokens_cover_text", lambda ledger: ledger.draft("two!", [token(1, 3)])),
    ("tokens_cover_text", lambda ledger: ledger.draft("two!", [token(1, 5)])),
    ("tokens_cover_text", lambda ledger: ledger.verify("two", "", [token(1, 2)])),
    ("tokens_cover_text", lambda ledger: ledger.verify("tw", "o", [token(1, 3)])),
]


@pytest.mark.parametrize(("invariant", "misuse"), MISUSES)
def test_ledger_refuses_and_stays_as_it_was(
    invariant: str, misuse: Callable[[Ledger], None]
) -> None:
    ledger = begun()
    digest = ledger.digest()
    with pytest.raises(LedgerError, match=invariant) as error:
        misuse(ledger)
    assert error.value.invariant == invariant
    assert (ledger.current.committed_text(), ledger.current.tail) == ("One ", "two")
    assert (ledger.current.cause, ledger.ending, ledger.digest()) == (None, None, digest)
    assert ledger.current.tokens(0, 99) == []


MORE: list[Callable[[Ledger], None]] = [
    lambda ledger: ledger.draft("x"),
    lambda ledger: ledger.verify("x"),
    lambda ledger: ledger.begin_part("text"),
    lambda ledger: ledger.finish("stop", Usage()),
    lambda ledger: ledger.fail("internal", "", False),
]


@pytest.mark.parametrize("more", MORE)
@pytest.mark.parametrize("failing", [True, False])
def test_ledger_refuses_everything_after_the_end(
    more: Callable[[Ledger], None], failing: bool
) -> None:
    ledger = Ledger()
    if failing:
        ledger.fail("engine_failed", "gone", False)
    else:
        ledger.finish("stop", Usage())
    with pytest.raises(LedgerError, match="nothing_after_the_end"):
        more(ledger)


def test_ledger_keeps_committed_text_and_drops_the_tail_when_it_fails() -> None:
    ledger = begun()
    ledger.fail("engine_failed", "gone", True)
    assert ledger.ending == Failed("engine_failed", "gone", True)
    assert (ledger.current.committed_text(), ledger.current.tail) == ("One ", "")
    assert ledger.current.cause == "cancelled"
    assert not ledger.current.complete


def test_ledger_forgets_the_tokens_of_a_dropped_tail() -> None:
    ledger = Ledger()
    ledger.verify("a", "", [token(1, 1)])
    ledger.draft("b", [token(2, 1)])
    ledger.fail("engine_failed", "gone", True)
    assert [token.id for token, _ in ledger.current.tokens(0, 9)] == [1]


def test_ledger_names_no_cause_where_nothing_vanished() -> None:
    ledger = begun()
    ledger.draft("two three", cause="engine_restart")
    ledger.verify("two", " three", cause="draft_rejected")
    assert ledger.current.cause is None
    ledger.fail("engine_failed", "gone", True, cause="engine_restart")
    assert ledger.current.cause == "engine_restart"
    empty = Ledger()
    empty.fail("engine_failed", "gone", True)
    assert empty.current.cause is None


def test_ledger_remembers_the_most_recent_cause_of_the_part() -> None:
    ledger = begun()
    ledger.draft("", cause="engine_restart")
    assert ledger.current.cause == "engine_restart"
    ledger.draft("x")
    ledger.verify("y", cause="draft_rejected")
    assert ledger.current.cause == "draft_rejected"
    ledger.begin_part("tool_call", "f")
    assert ledger.current.cause is None


def test_ledger_completes_a_part_when_the_next_begins_and_the_last_at_finish() -> None:
    ledger = Ledger()
    ledger.begin_part("tool_call", "f")
    first, second = ledger.parts
    assert (first.complete, second.complete) == (True, False)
    assert (second.index, second.kind, second.name) == (1, "tool_call", "f")
    ledger.finish("tool_calls", Usage(completion_tokens=1), 2)
    assert second.complete
    assert ledger.ending == Completed("tool_calls", Usage(completion_tokens=1), 2)


def test_part_gives_slices_of_committed_text_and_tail() -> None:
    part = begun().current
    assert part.text(0) == "One two"
    assert (part.text(1, 3), part.text(2, 6), part.text(5, 6)) == ("ne", "e tw", "w")
    assert (part.committed_text(1), part.committed_text(1, 3)) == ("ne ", "ne")
    assert (part.committed_length, part.total_length) == (4, 7)


def test_part_places_tokens_of_committed_text_and_tail() -> None:
    ledger = Ledger()
    ledger.verify("One", "", [token(1, 3)])
    ledger.draft(" two", [token(2, 1), token(3, 3)])
    part = ledger.current
    assert [(token.id, end - token.n, end) for token, end in part.tokens(0, 7)] == [
        (1, 0, 3),
        (2, 3, 4),
        (3, 4, 7),
    ]
    assert [token.id for token, _ in part.tokens(3, 6)] == [2]
    assert [token.id for token, _ in part.tokens(0, 2)] == []


def test_part_keeps_the_tokens_of_a_tail_that_stands() -> None:
    ledger = Ledger()
    ledger.draft("abcdef", [token(1, 1), token(2, 2), token(3, 3)])
    ledger.verify("a", "bc", [token(9, 1)], cause="draft_rejected")
    assert [(token.id, end) for token, end in ledger.current.tokens(0, 9)] == [(9, 1), (2, 3)]
    ledger.draft("", cause="engine_restart")
    assert [token.id for token, _ in ledger.current.tokens(0, 9)] == [9]


def test_part_lists_a_token_without_text_with_the_one_that_completes_it() -> None:
    ledger = Ledger()
    ledger.verify("a", "", [token(1, 1), token(2, 0)])
    ledger.verify("👍b", "", [token(3, 0), token(4, 2)])
    part = ledger.current
    assert [token.id for token, _ in part.tokens(0, 1)] == [1]
    assert [(token.id, end - token.n, end) for token, end in part.tokens(1, 3)] == [
        (2, 2, 2),
        (3, 2, 2),
        (4, 1, 3),
    ]


def test_part_multiplies_the_confidences_of_the_tail() -> None:
    ledger = Ledger()
    ledger.verify("ab")
    ledger.draft("cdef", [token(1, 1, 0.5), token(2, 1, 0.5), token(3, 2, 0.1)])
    part = ledger.current
    assert part.tail_confidence(2, 4) == 0.25
    assert part.tail_confidence(0, 4) == 0.25
    assert part.tail_confidence(0, 2) == 1.0


def test_part_knows_no_confidence_where_tokens_have_none() -> None:
    ledger = Ledger()
    ledger.draft("ab", [token(1, 1, 0.5), token(2, 1)])
    assert ledger.current.tail_confidence(0, 2) is None
    ledger.draft("abc")
    assert ledger.current.tail_confidence(0, 3) is None


def test_ledger_digests_all_parts_as_utf8() -> None:
    # sha256sum of the ten bytes "日本語!"
    ledger = Ledger()
    ledger.verify("日本", "語")
    ledger.verify("語")
    ledger.begin_part("text")
    ledger.verify("!", "")
    assert ledger.digest() == "f1d851023b476016a0468cc0a45f08e33f7b97d88b9ac72b8a5546adb447532e"
