"""The budget of `retract`, through real senders: what is taken back stays within it, whatever the
drafter claims and does.
"""

from __future__ import annotations

import random
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policies import SpecPolicy
from protocol.cursor import Cursor
from protocol.edition import Edition
from protocol.events import Commit, OffsetUnit, Retract, Tentative, Token
from protocol.ledger import Ledger
from protocol.policy import Told
from protocol.requests import StreamRetract
from protocol.sender import Sender
from tests.property.traces import patient

TOKEN = "abcd"


class Reader:
    """Counts for itself what one attachment shows and takes back."""

    def __init__(
        self,
        ledger: Ledger,
        budget: float | None,
        *,
        at: int | None = None,
        max_tail: int = 1000,
        edition: Edition | None = None,
    ) -> None:
        """`edition`: one that other readers with the same budget have, too."""
        self.budget = 1.0 if budget is None else budget
        self.sender = Sender(edition or edition_of(ledger, budget, max_tail))
        self.sender.open(None if at is None else Cursor(1, 0, at))
        self.committed = self.erased = self.shown = self.tail = self.longest = 0

    def pull(self) -> None:
        for event in self.sender.advance(0.0):
            match event:
                case Commit(text=text, retract=gone):
                    self.take_back(gone.n if gone else 0)
                    self.committed += len(text)
                    self.tail = max(0, self.tail - len(text))
                case Retract(n=n):
                    self.take_back(n)
                case Tentative(text=text):
                    self.shown += len(text)
                    self.tail += len(text)
                    self.longest = max(self.longest, self.tail)
                case _:
                    raise AssertionError(event)

    def take_back(self, n: int) -> None:
        self.erased += n
        self.tail -= n

    def check(self) -> None:
        assert self.erased <= self.budget * self.committed + self.longest + 1e-6


def edition_of(ledger: Ledger, budget: float | None, max_tail: int = 1000) -> Edition:
    return Edition(
        ledger,
        SpecPolicy(StreamRetract(budget=budget, max_tail=max_tail)),
        stream="s",
        epoch=1,
        model="m",
        unit=OffsetUnit.CODEPOINT,
        started_at=0.0,
    )


class Round(NamedTuple):
    """A draft: per token the chance that is claimed; how many are right; one more is committed."""

    claims: list[float | None]
    right: int


def play(ledger: Ledger, round_: Round, readers: list[Reader]) -> None:
    claims, right = round_
    ledger.draft(TOKEN * len(claims), [Token(7, 4, None, claim) for claim in claims])
    for reader in readers:
        reader.pull()
    text = TOKEN * min(right, len(claims)) + "WXYZ"
    wrong = right < len(claims)
    ledger.verify(text, "", [Token(7, 4)] * (len(text) // 4), "draft_rejected" if wrong else None)
    for reader in readers:
        reader.pull()


claims = st.none() | st.floats(0.0, 1.0) | st.just(1.0)
rounds = st.lists(st.builds(Round, st.lists(claims, max_size=8), st.integers(0, 8)), max_size=60)
budgets = st.floats(0.001, 0.999)


@patient
@given(rounds=rounds, several=st.lists(budgets, min_size=1, max_size=3), cut=st.integers(0, 60))
def test_reader_loses_at_most_the_budget_and_one_tail_whatever_is_claimed(
    rounds: list[Round], several: list[float], cut: int
) -> None:
    ledger = Ledger()
    readers = [Reader(ledger, budget) for budget in several]
    for number, round_ in enumerate(rounds):
        if number == cut:  # one reader goes and comes back, with an account of its own
            readers.append(Reader(ledger, several[0], at=ledger.current.committed_length))
        play(ledger, round_, readers)
        for reader in readers:
            reader.check()


@patient
@given(rounds=rounds, budget=budgets, lags=st.lists(st.integers(0, 7), min_size=60, max_size=60))
def test_readers_who_share_a_budget_lose_at_most_their_own_each(
    rounds: list[Round], budget: float, lags: list[int]
) -> None:
    """Whoever lags misses drafts that the others pay for, and joins them later. One comes late."""
    ledger = Ledger()
    edition = edition_of(ledger, budget)
    readers = [Reader(ledger, budget, edition=edition) for _ in range(3)]
    for number, (round_, lag) in enumerate(zip(rounds, lags, strict=False)):
        if number == len(rounds) // 2:
            at = ledger.current.committed_length
            readers.append(Reader(ledger, budget, at=at, edition=edition))
        play(ledger, round_, [each for index, each in enumerate(readers) if not lag >> index & 1])
        for reader in readers:
            reader.check()


@patient
@given(rounds=rounds)
def test_reader_without_a_budget_to_speak_of_sees_nothing_tentative(rounds: list[Round]) -> None:
    ledger = Ledger()
    reader = Reader(ledger, 1e-9)
    for round_ in rounds:
        play(ledger, round_, [reader])
    assert reader.shown == 0


@patient
@given(rounds=rounds)
def test_reader_with_a_budget_of_one_sees_all_that_plain_retract_shows(
    rounds: list[Round],
) -> None:
    ledger = Ledger()
    plain, whole = Reader(ledger, None), Reader(ledger, 1.0)
    for round_ in rounds:
        play(ledger, round_, [plain, whole])
        assert (whole.shown, whole.erased) == (plain.shown, plain.erased)


def test_reader_waits_for_the_first_word_with_little_of_a_draft_on_show() -> None:
    ledger = Ledger()
    reader, bold = Reader(ledger, 0.05), Reader(ledger, 0.5)
    ledger.draft(TOKEN * 8, [Token(7, 4, None, 0.7)] * 8)
    reader.pull()
    bold.pull()
    assert 0 < reader.shown <= 12
    assert reader.shown < bold.shown


def test_reader_is_shown_nothing_more_before_the_first_word_once_a_draft_was_taken_back() -> None:
    ledger = Ledger()
    reader = Reader(ledger, 0.05)
    ledger.draft("wrong", [Token(7, 5, None, 0.7)])
    reader.pull()
    assert reader.shown == 5
    ledger.draft("sure", [Token(7, 4, None, 1.0)], "draft_rejected")
    reader.pull()
    assert (reader.erased, reader.shown) == (5, 5)


def test_reader_sees_a_resumed_stream_safe_again() -> None:
    ledger = Ledger()
    old = Reader(ledger, 0.1)
    for _ in range(60):
        play(ledger, Round([0.97] * 4, 4), [old])
    fresh = Reader(ledger, 0.1, at=ledger.current.committed_length)
    ledger.draft(TOKEN * 4, [Token(7, 4, None, 0.97)] * 4)
    before = old.shown
    old.pull()
    fresh.pull()
    assert old.shown - before == 16
    assert fresh.shown == 0


def stated(chance: float, exponent: float) -> float:
    """Above 1: modest; below 1: overconfident."""
    return chance**exponent


@pytest.mark.parametrize("budget", [0.02, 0.05, 0.10])
@pytest.mark.parametrize("exponent", [1.0, 0.25, 0.02], ids=["true", "overconfident", "blind"])
def test_budget_holds_over_many_streams_however_confidence_is_claimed(
    budget: float, exponent: float
) -> None:
    """200 streams of about 1,000 code points; the upper 95 % bound of what is taken back per
    committed unit is within the budget, and a drafter that tells the truth is let through.
    """
    rng = random.Random(f"{budget} {exponent}")
    pairs: list[tuple[int, int]] = []
    shown = 0
    for _ in range(200):
        ledger = Ledger()
        reader = Reader(ledger, budget)
        while ledger.current.committed_length < 1000:
            chances = [rng.choice((0.5, 0.8, 0.95, 0.99)) for _ in range(4)]
            right = 0
            while right < 4 and rng.random() < chances[right]:
                right += 1
            play(ledger, Round([stated(c, exponent) for c in chances], right), [reader])
        pairs.append((reader.erased, reader.committed))
        shown += reader.shown
    committed = sum(below for _, below in pairs)
    rate = sum(above for above, _ in pairs) / committed
    spread = sum((above - rate * below) ** 2 for above, below in pairs) ** 0.5 / committed
    assert rate + 1.96 * spread <= budget
    if exponent == 1.0:
        assert rate >= 0.5 * budget
        assert shown >= 4 * budget * committed


def test_reader_with_a_budget_never_gets_half_a_cluster_when_that_is_forbidden() -> None:
    ledger = Ledger()
    policy = SpecPolicy(StreamRetract(budget=0.02, grapheme_safe=True))
    ledger.verify("a" * 100)
    ledger.draft("bcde\u0301f", [Token(7, 4, None, 1.0), Token(7, 2, None, 0.1)])
    # The budget allows "bcde", whose last letter may still get its accent.
    assert policy.view(ledger.current, 0.0, Told(100, 100, 100, 0)).shown == 103


def test_budget_holds_against_a_drafter_that_was_right_for_long_and_turns_wrong() -> None:
    ledger = Ledger()
    reader = Reader(ledger, 0.1)
    for _ in range(100):
        play(ledger, Round([1.0], 1), [reader])
    for _ in range(300):
        play(ledger, Round([1.0], 0), [reader])
        reader.check()
    assert reader.erased > 0


def test_budget_goes_by_what_became_of_drafts_and_not_by_what_was_claimed() -> None:
    """What claims to be nearly certain is always wrong, what claims to be doubtful always right."""
    ledger = Ledger()
    reader = Reader(ledger, 0.05)
    for _ in range(150):
        play(ledger, Round([0.99], 0), [reader])
        play(ledger, Round([0.7], 1), [reader])
    lost = reader.erased
    for _ in range(50):
        play(ledger, Round([0.99], 0), [reader])
    assert 0 < reader.erased == lost
