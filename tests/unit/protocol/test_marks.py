"""Marks: tokens are packed, and come out as they went in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import LedgerError
from protocol.events import Alternative, Token, Usage
from protocol.ledger import Ledger
from tests.property.traces import patient

chances = st.none() | st.floats(-5, 0)
tokens = st.lists(
    st.builds(
        Token,
        id=st.integers(0, 2**32 - 1),
        n=st.integers(1, 3),
        logprob=chances,
        confidence=chances,
        top=st.none() | st.just([Alternative(1, "x", -0.5)]),
    ),
    max_size=4,
)


@patient
@given(steps=st.lists(tokens, max_size=5))
def test_ledger_gives_tokens_back_as_they_came(steps: list[list[Token]]) -> None:
    ledger = Ledger()
    for step in steps:
        ledger.verify("x" * sum(token.n for token in step), tokens=step)
    whole = ledger.current.tokens(0, ledger.current.committed_length)
    assert [token for token, _ in whole] == [token for step in steps for token in step]


def test_alternatives_stay_with_their_tokens_and_count_as_held() -> None:
    ledger, plain = Ledger(), Ledger()
    tops = [[Alternative(n, f"{n}", -1.0)] * 5 if n % 3 else None for n in range(300)]
    for number, top in enumerate(tops):
        ledger.verify("word ", tokens=[Token(number, 5, -0.5, top=top)])
        plain.verify("word ", tokens=[Token(number, 5, -0.5)])
    assert [token.top for token, _ in ledger.current.tokens(0, 1500)] == tops
    assert ledger.held_bytes > plain.held_bytes + 200 * 5 * 8
    ledger.forget_tokens()
    plain.forget_tokens()
    assert ledger.held_bytes == plain.held_bytes


def test_ledger_holds_little_more_for_its_tokens_than_for_its_text() -> None:
    ledger = Ledger()
    for step in range(500):
        ledger.verify("word " * 4, tokens=[Token(step * 4 + i, 5, -0.5) for i in range(4)])
    ledger.finish("stop", Usage())
    assert 10_000 < ledger.held_bytes < 6 * 10_000
    ledger.forget_tokens()
    assert 10_000 < ledger.held_bytes < 1.5 * 10_000
    assert ledger.current.tokens(0, 10_000) == []
    assert ledger.current.committed_text() == "word " * 2000


@pytest.mark.parametrize(
    "broken", [(Token(2**32, 2),), (Token(-1, 2),), (Token(8, -1), Token(9, 3))]
)
def test_ledger_refuses_tokens_that_do_not_fit_and_stays_as_it_was(broken: tuple[Token]) -> None:
    ledger = Ledger()
    ledger.verify("ab", tokens=[Token(1, 2)])
    with pytest.raises(LedgerError, match="tokens_fit"):
        ledger.verify("cde", tokens=[Token(7, 1), *broken])
    assert ledger.current.committed_text() == "ab"
    assert ledger.current.tokens(0, 9) == [(Token(1, 2), 2)]
