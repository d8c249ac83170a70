"""Editions: what readers share, and what they must not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.cursor import Cursor
from protocol.edition import Edition
from protocol.events import Commit, Finish, OffsetUnit, Part, Tentative, Usage
from protocol.ledger import Ledger, PartLedger
from protocol.policy import Told, View
from protocol.sender import Sender

if TYPE_CHECKING:
    from protocol.events import IncludeItem, ServerEvent


class Everything:
    """Counts how often it is asked; wants to be asked again at `wake_at`."""

    wants_drafts = True

    def __init__(self, *, heeds_told: bool = False, wake_at: float | None = None) -> None:
        self.heeds_told = heeds_told
        self.described: dict[str, object] = {"kind": "retract"}
        self.asked = 0
        self._wake_at = wake_at

    def view(self, part: PartLedger, now: float, told: Told | None) -> View:
        self.asked += 1
        return View(part.committed_length, part.total_length, self._wake_at)


def edition_of(
    ledger: Ledger, policy: Everything, include: tuple[IncludeItem, ...] = ()
) -> Edition:
    return Edition(
        ledger,
        policy,
        stream="s1",
        epoch=7,
        model="m",
        unit=OffsetUnit.CODEPOINT,
        started_at=0.0,
        include=include,
    )


def readers_of(edition: Edition, count: int = 2) -> list[Sender]:
    senders = [Sender(edition) for _ in range(count)]
    for sender in senders:
        sender.open()
    return senders


def test_readers_who_were_told_the_same_are_given_the_same_step() -> None:
    ledger, policy = Ledger(), Everything()
    first, second = readers_of(edition_of(ledger, policy))
    ledger.verify("a", "b")
    events = first.advance(1.0)
    assert events == [Commit(at=0, text="a"), Tentative(at=1, text="b")]
    assert second.advance(2.0) is events
    assert policy.asked == 1
    assert first.cursor == second.cursor == Cursor(7, 0, 1)


def test_reader_who_lags_gets_a_step_of_its_own_and_joins_the_others_with_it() -> None:
    ledger = Ledger()
    first, second = readers_of(edition_of(ledger, Everything()))
    ledger.verify("a", "x")
    first.advance(1.0)
    ledger.verify("b", "c", cause="draft_rejected")
    (commit, _) = first.advance(1.0)
    assert isinstance(commit, Commit)
    assert commit.retract is not None
    assert second.advance(1.0) == [Commit(at=0, text="ab"), Tentative(at=2, text="c")]
    ledger.verify("c")
    assert first.advance(2.0) is second.advance(2.0)


def test_reader_is_not_given_the_step_of_an_earlier_ledger() -> None:
    ledger = Ledger()
    first, second = readers_of(edition_of(ledger, Everything()))
    ledger.draft("a")
    assert first.advance(1.0) == [Tentative(at=0, text="a")]
    ledger.draft("b", cause="engine_restart")
    assert second.advance(1.0) == [Tentative(at=0, text="b")]


def test_reader_is_not_given_a_step_once_the_policy_wants_to_be_asked_again() -> None:
    ledger, policy = Ledger(), Everything(wake_at=5.0)
    first, second, third = readers_of(edition_of(ledger, policy), 3)
    ledger.verify("a")
    first.advance(1.0)
    second.advance(4.9)
    assert policy.asked == 1
    assert second.wake_at == 5.0
    third.advance(5.0)
    assert policy.asked == 2


def test_policy_that_goes_by_what_readers_were_told_is_asked_once_for_the_same_account() -> None:
    ledger, policy = Ledger(), Everything(heeds_told=True)
    first, second = readers_of(edition_of(ledger, policy))
    ledger.verify("a")
    assert first.advance(1.0) is second.advance(1.0)
    assert policy.asked == 1


def test_policy_that_goes_by_what_readers_were_told_is_asked_for_each_account() -> None:
    """One lost text that the other never saw: they hold the same and have paid differently."""
    ledger, policy = Ledger(), Everything(heeds_told=True)
    first, second = readers_of(edition_of(ledger, policy))
    ledger.draft("x")
    first.advance(1.0)
    ledger.draft("", cause="draft_rejected")
    first.advance(1.0)
    second.advance(1.0)
    asked = policy.asked
    ledger.verify("a")
    assert first.advance(2.0) is not second.advance(2.0)
    assert policy.asked == asked + 2


def test_readers_share_nothing_when_events_say_when_they_were_sent() -> None:
    ledger = Ledger()
    first, second = readers_of(edition_of(ledger, Everything(), ("timing",)))
    ledger.verify("a")
    assert first.advance(1.0) == [Commit(at=0, text="a", t=1000.0)]
    assert second.advance(2.0) == [Commit(at=0, text="a", t=2000.0)]


def test_readers_keep_their_own_parts_statistics_and_end() -> None:
    ledger = Ledger()
    early, late = readers_of(edition_of(ledger, Everything()))
    ledger.draft("ab")
    early.advance(1.0)
    ledger.verify("x", cause="draft_rejected")
    early.advance(1.0)
    ledger.begin_part("text")
    ledger.verify("y")
    ledger.finish("stop", Usage())
    part, commit, end = early.advance(2.0)
    assert (part, commit) == (Part(part=1, kind="text"), Commit(at=0, text="y"))
    *_, other = late.advance(3.0)
    assert isinstance(end, Finish)
    assert isinstance(other, Finish)
    assert (end.stats.erased_units, end.stats.ttfv_ms) == (2, 1000.0)
    assert (other.stats.erased_units, other.stats.ttfv_ms) == (0, 3000.0)
    assert end.digest == other.digest


def test_events_of_a_shared_step_are_encoded_once() -> None:
    ledger = Ledger()
    edition = edition_of(ledger, Everything())
    readers = readers_of(edition)
    encoded: list[list[ServerEvent]] = []

    def encode(events: list[ServerEvent]) -> int:
        encoded.append(events)
        return len(encoded)

    ledger.verify("a")
    assert [edition.encoded(reader.advance(1.0), encode) for reader in readers] == [1, 1]
    ledger.verify("b")
    assert [edition.encoded(reader.advance(1.0), encode) for reader in readers] == [2, 2]


def test_events_of_one_reader_alone_are_encoded_for_it() -> None:
    ledger = Ledger()
    edition = edition_of(ledger, Everything())
    early, late = readers_of(edition)
    ledger.verify("a")
    early.advance(1.0)
    late.advance(2.0)
    ledger.finish("stop", Usage())

    def encode(events: list[ServerEvent]) -> float | None:
        (finish,) = events
        assert isinstance(finish, Finish)
        return finish.stats.ttfv_ms

    assert edition.encoded(early.advance(3.0), encode) == 1000.0
    assert edition.encoded(late.advance(3.0), encode) == 2000.0
