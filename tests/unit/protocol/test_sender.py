"""Sender: misuse, policies that break the rules, closing, statistics. What it sends for which
ledger is in tests/vectors/sender.json.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from protocol.cursor import Cursor, Mark
from protocol.edition import Edition
from protocol.errors import ErrorCode, LocalProtocolError, PolicyError, RequestError
from protocol.events import (
    Commit,
    Error,
    Finish,
    Heartbeat,
    OffsetUnit,
    Part,
    Retract,
    Retraction,
    Tentative,
    Usage,
)
from protocol.ledger import Ledger, PartLedger
from protocol.policy import Told, View
from protocol.sender import Sender

if TYPE_CHECKING:
    from collections.abc import Callable

    from protocol.events import IncludeItem, ServerEvent


def everything(part: PartLedger) -> View:
    return View(part.committed_length, part.total_length)


class AsTheTestSays:
    """A policy that allows what the test says."""

    wants_drafts = True
    heeds_told = True

    def __init__(self) -> None:
        self.described: dict[str, object] = {"kind": "retract"}
        self.allow: Callable[[PartLedger], View] = everything

    def view(self, part: PartLedger, now: float, told: Told | None) -> View:
        return self.allow(part)


class ToldSender(Sender):
    def pull(self, view: Callable[[PartLedger], View], now: float) -> list[ServerEvent]:
        assert isinstance(self.policy, AsTheTestSays)
        self.policy.allow = view
        return self.advance(now)


def attached(
    ledger: Ledger,
    *,
    unit: OffsetUnit = OffsetUnit.CODEPOINT,
    multiplexed: bool = False,
    include: tuple[IncludeItem, ...] = (),
) -> ToldSender:
    edition = Edition(
        ledger,
        AsTheTestSays(),
        stream="s1",
        epoch=7,
        model="m",
        unit=unit,
        started_at=10.0,
        seed=42,
        include=include,
        multiplexed=multiplexed,
    )
    return ToldSender(edition, ref="a")


def opened(ledger: Ledger, *, multiplexed: bool = False) -> ToldSender:
    sender = attached(ledger, multiplexed=multiplexed)
    sender.open()
    return sender


def test_sender_opens_with_the_terms_of_the_attachment() -> None:
    ledger = Ledger()
    ledger.begin_part("tool_call", "f")
    event = attached(ledger, unit=OffsetUnit.UTF16).open(Cursor(7, 1, 0))
    assert (event.v, event.stream, event.epoch, event.model) == (1, "s1", 7, "m")
    assert (event.policy, event.offsets, event.seed) == ({"kind": "retract"}, OffsetUnit.UTF16, 42)
    assert (event.part, event.at, event.kind, event.name) == (1, 0, "tool_call", "f")
    assert (event.ref, event.t) == ("a", None)


def test_sender_refuses_to_advance_before_open() -> None:
    with pytest.raises(LocalProtocolError, match="before open"):
        attached(Ledger()).pull(everything, 10.0)


def test_sender_refuses_to_open_twice() -> None:
    sender = opened(Ledger())
    with pytest.raises(LocalProtocolError, match="Open in state OPEN"):
        sender.open()


@pytest.mark.parametrize("view", [View(3, 5), View(2, 6)])
def test_sender_refuses_a_view_beyond_the_ledger(view: View) -> None:
    ledger = Ledger()
    ledger.verify("ab", "cde")
    sender = opened(ledger)
    with pytest.raises(LocalProtocolError, match="exceeds"):
        sender.pull(lambda part: view, 10.0)


def test_sender_shows_committed_text_to_be_committed_whatever_the_view_shows() -> None:
    ledger = Ledger()
    ledger.verify("abc")
    events = opened(ledger).pull(lambda part: View(3, 0), 10.0)
    assert events == [Commit(at=0, text="abc")]


def test_sender_passes_on_when_the_policy_wants_to_wake() -> None:
    ledger = Ledger()
    sender = opened(ledger)
    assert sender.wake_at is None
    sender.pull(lambda part: View(0, 0, 12.5), 10.0)
    assert sender.wake_at == 12.5
    ledger.finish("stop", Usage())
    sender.pull(everything, 11.0)
    assert sender.wake_at is None


def test_sender_asks_the_policy_about_the_part_that_grows_only() -> None:
    ledger = Ledger()
    ledger.verify("a")
    ledger.begin_part("text")
    ledger.begin_part("text")
    asked: list[int] = []

    def view(part: PartLedger) -> View:
        asked.append(part.index)
        return everything(part)

    sender = opened(ledger)
    sender.pull(view, 10.0)
    assert asked == [2]


def test_sender_names_the_stream_in_every_event_when_multiplexed() -> None:
    ledger = Ledger()
    ledger.verify("ab", "c")
    sender = opened(ledger, multiplexed=True)
    events = sender.pull(everything, 10.0)
    ledger.draft("x", cause="engine_restart")
    events += sender.pull(everything, 10.0)
    ledger.verify("x")
    ledger.begin_part("text")
    ledger.finish("stop", Usage())
    events += sender.pull(everything, 10.0)
    names = [type(event).__name__ for event in events]
    expected = ["Commit", "Tentative", "Retract", "Tentative", "Commit", "Part", "Finish"]
    assert names == expected
    assert all(event.stream == "s1" for event in events)
    assert sender.heartbeat() == Heartbeat(stream="s1")


def test_sender_leaves_the_stream_out_when_the_transport_carries_one() -> None:
    ledger = Ledger()
    ledger.verify("a")
    sender = opened(ledger)
    assert sender.pull(everything, 10.0) == [Commit(at=0, text="a")]
    assert sender.heartbeat() == Heartbeat()


def test_sender_ends_an_attachment_with_an_error_and_says_nothing_more() -> None:
    ledger = Ledger()
    ledger.verify("ab", "c")
    sender = opened(ledger)
    sender.pull(everything, 10.0)
    assert not sender.closed
    event = sender.fail("slow_reader", "too slow", True)
    assert event == Error(code="slow_reader", message="too slow", retryable=True, at=2)
    assert sender.closed
    ledger.verify("c")
    assert sender.pull(everything, 10.0) == []
    with pytest.raises(LocalProtocolError, match="Error in state FAILED"):
        sender.fail("slow_reader", "too slow", True)


def test_sender_says_nothing_more_after_finish() -> None:
    ledger = Ledger()
    ledger.finish("stop", Usage())
    sender = opened(ledger)
    assert [type(event) for event in sender.pull(everything, 10.0)] == [Finish]
    assert sender.closed
    assert sender.pull(everything, 10.0) == []


def test_sender_cursor_follows_the_watermark_in_the_readers_unit() -> None:
    ledger = Ledger()
    sender = opened(ledger)
    assert sender.cursor == Cursor(7, 0, 0)
    ledger.verify("👍", "tail")
    sender.pull(everything, 10.0)
    assert sender.cursor == Cursor(7, 0, 1)
    wide = attached(ledger, unit=OffsetUnit.UTF8)
    wide.open()
    wide.pull(everything, 10.0)
    assert wide.cursor == Cursor(7, 0, 4)
    ledger.verify("tail")
    ledger.begin_part("text")
    wide.pull(everything, 10.0)
    assert wide.cursor == Cursor(7, 1, 0)


def test_sender_knows_whether_finish_was_told() -> None:
    ledger = Ledger()
    ledger.verify("ab")
    ledger.finish("length", Usage())
    sender = attached(ledger)
    sender.open(Cursor(7, 0, 2))
    assert not sender.finish_was_told
    sender.pull(everything, 10.0)
    assert sender.finish_was_told
    assert sender.cursor == Cursor(7, 0, 2, Mark.FINISH)
    again = attached(ledger)
    again.open(sender.cursor)
    assert again.finish_was_told


def test_sender_refuses_a_reader_that_was_told_an_error_of_unknown_code() -> None:
    ledger = Ledger()
    ledger.fail("upstream_on_fire", "hot", False)
    with pytest.raises(RequestError, match="hot") as refusal:
        attached(ledger).open(Cursor(7, 0, 0, Mark.ERROR))
    assert refusal.value.code == ErrorCode.ENGINE_FAILED


def test_sender_ends_the_attachment_when_the_policy_fails_and_keeps_what_came_before() -> None:
    def failing(part: PartLedger) -> View:
        raise PolicyError("no boundary")

    ledger = Ledger()
    ledger.verify("first")
    sender = attached(ledger)
    sender.open()
    ledger.begin_part("text")
    ledger.verify("poison")
    events = sender.pull(failing, 10.0)
    assert events == [
        Commit(at=0, text="first"),
        Part(part=1, kind="text"),
        Error(code="policy_failed", message="no boundary", retryable=False, at=0),
    ]
    assert sender.closed
    assert sender.pull(failing, 11.0) == []


def test_sender_settles_shown_text_once_it_is_committed_but_withheld() -> None:
    ledger = Ledger()
    ledger.draft("日本語x")
    sender = attached(ledger, unit=OffsetUnit.UTF8)
    sender.open()
    sender.pull(lambda part: View(0, part.total_length), 10.0)
    ledger.verify("日本", "語", cause="draft_rejected")
    assert sender.pull(lambda part: View(0, part.total_length), 10.0) == [
        Retract(at=9, n=1, cause="draft_rejected")
    ]
    ledger.draft("語!")
    assert sender.pull(lambda part: View(1, part.total_length), 10.0) == [
        Commit(at=0, text="日"),
        Tentative(at=9, text="!", verified=6),
    ]
    assert sender.cursor == Cursor(7, 0, 3)
    ledger.verify("語", cause="draft_rejected")
    assert sender.pull(lambda part: View(3, 3), 10.0) == [
        Commit(at=3, text="本語", retract=Retraction(at=9, n=1, cause="draft_rejected"))
    ]


@pytest.mark.parametrize(
    ("cursor", "code"),
    [
        (Cursor(8, 0, 0), ErrorCode.UNKNOWN_EPOCH),
        (Cursor(7, 2, 0), ErrorCode.CURSOR_AHEAD),
        (Cursor(7, 0, 6), ErrorCode.CURSOR_AHEAD),
        (Cursor(7, 0, 3), ErrorCode.BAD_CURSOR),
    ],
)
def test_sender_refuses_a_cursor_and_can_be_asked_again(cursor: Cursor, code: ErrorCode) -> None:
    ledger = Ledger()
    ledger.verify("a👍")
    ledger.begin_part("text")
    sender = attached(ledger, unit=OffsetUnit.UTF8)
    with pytest.raises(RequestError) as refusal:
        sender.open(cursor)
    assert (refusal.value.code, refusal.value.param) == (code, "cursor")
    assert sender.open(Cursor(7, 0, 5)).at == 5


def test_sender_counts_final_units_of_parts_before_the_cursor() -> None:
    ledger = Ledger()
    ledger.verify("日本")
    ledger.begin_part("text")
    ledger.verify("abcd")
    sender = attached(ledger, unit=OffsetUnit.UTF8)
    sender.open(Cursor(7, 1, 2))
    ledger.draft("12")
    sender.pull(everything, 10.5)
    ledger.draft("", cause="cancelled")
    ledger.finish("cancelled", Usage())
    *_, finish = sender.pull(everything, 11.0)
    assert isinstance(finish, Finish)
    assert finish.stats.erased_units == 2
    assert finish.stats.normalized_erasure == 2 / 10
    assert finish.stats.ttfv_ms == finish.stats.ttc_ms == 500.0


def test_sender_reports_no_rates_where_nothing_was_counted() -> None:
    ledger = Ledger()
    ledger.finish("stop", Usage(completion_tokens=3))
    (finish,) = opened(ledger).pull(everything, 11.0)
    assert isinstance(finish, Finish)
    assert finish.stats.acceptance_rate is None
    assert finish.stats.tokens_per_step is None
    assert finish.stats.ttfv_ms is finish.stats.ttc_ms is None
    assert finish.stats.normalized_erasure == 0.0


def test_sender_times_first_visible_and_first_committed_apart() -> None:
    ledger = Ledger()
    sender = opened(ledger)
    ledger.draft("ab")
    assert isinstance(sender.pull(everything, 10.25)[0], Tentative)
    ledger.verify("ab")
    sender.pull(everything, 10.5)
    ledger.verify("c", "d")
    sender.pull(everything, 10.75)
    ledger.draft("", cause="stop_sequence")
    ledger.finish("stop", Usage(drafted_tokens=4, accepted_tokens=1, completion_tokens=3), 2)
    *_, finish = sender.pull(everything, 11.0)
    assert isinstance(finish, Finish)
    assert (finish.stats.ttfv_ms, finish.stats.ttc_ms) == (250.0, 500.0)
    assert (finish.stats.acceptance_rate, finish.stats.tokens_per_step) == (0.25, 1.5)
    assert (finish.stats.longest_tail, finish.stats.retractions) == (2, 1)


def test_sender_lists_no_tokens_where_the_source_gave_none() -> None:
    ledger = Ledger()
    ledger.verify("a", "b")
    sender = attached(ledger, include=("tokens", "confidence"))
    sender.open()
    commit, tentative = sender.pull(everything, 10.0)
    assert isinstance(commit, Commit)
    assert isinstance(tentative, Tentative)
    assert commit.tokens is tentative.tokens is tentative.confidence is None


def test_sender_is_certain_of_committed_text_that_is_withheld() -> None:
    ledger = Ledger()
    ledger.verify("ab")
    sender = attached(ledger, include=("confidence",))
    sender.open()
    assert sender.pull(lambda part: View(1, 2), 10.0) == [
        Commit(at=0, text="a"),
        Tentative(at=1, text="b", verified=2, confidence=1.0),
    ]
