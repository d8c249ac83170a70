"""Receiver: what it tells its caller, and misuse. What it accepts is in tests/vectors/."""

from __future__ import annotations

import pytest

from protocol.errors import ErrorCode, LocalProtocolError, RemoteProtocolError, RequestError
from protocol.events import (
    Commit,
    Error,
    Finish,
    Heartbeat,
    OffsetUnit,
    Open,
    Part,
    Retract,
    Retraction,
    Stats,
    Tentative,
    Usage,
)
from protocol.receiver import Change, Failure, Receiver
from protocol.transitions import State


def open_at(at: int, part: int = 0) -> Open:
    return Open(
        stream="s1",
        v=1,
        epoch=7,
        model="m",
        policy={},
        offsets=OffsetUnit.CODEPOINT,
        part=part,
        at=at,
    )


def finish_at(at: int) -> Finish:
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    return Finish(at=at, reason="stop", usage=Usage(), digest=empty, stats=Stats())


def opened() -> Receiver:
    receiver = Receiver()
    assert receiver.receive(open_at(0)) is None
    return receiver


def test_receiver_knows_nothing_before_open() -> None:
    receiver = Receiver()
    assert (receiver.state, receiver.cursor, receiver.parts) == (State.CONNECTING, None, [])
    assert (receiver.committed, receiver.tail, receiver.kind, receiver.stream) == (
        "",
        "",
        "text",
        None,
    )
    resumed = Receiver(cursor="7.0.2", held="Hi")
    assert (resumed.committed, resumed.cursor) == ("Hi", "7.0.2")


def test_receiver_says_what_each_event_changed() -> None:
    receiver = opened()
    assert receiver.receive(Tentative(at=0, text="The quick brown")) == Change(
        appended="The quick brown"
    )
    assert receiver.receive(Heartbeat()) is None
    retraction = Retraction(at=10, n=5, cause="draft_rejected")
    assert receiver.receive(Commit(at=0, text="The quick red", retract=retraction)) == Change(
        committed="The quick red", erased="brown", cause="draft_rejected", appended="red"
    )
    assert receiver.receive(Tentative(at=13, text=" fox")) == Change(appended=" fox")
    assert receiver.receive(Commit(at=13, text=" f")) == Change(committed=" f")
    assert receiver.receive(Retract(at=16, n=1, cause="cancelled")) == Change(
        erased="x", cause="cancelled"
    )
    assert (receiver.committed, receiver.tail, receiver.cursor) == (
        "The quick red f",
        "o",
        "7.0.15",
    )
    assert receiver.parts[-1].text == "The quick red fo"


def test_receiver_begins_a_part_with_its_kind() -> None:
    receiver = opened()
    receiver.receive(Commit(at=0, text="a"))
    assert receiver.receive(Part(part=1, kind="tool_call", name="f")) is None
    assert [part.complete for part in receiver.parts] == [True, False]
    assert (receiver.kind, receiver.parts[1].name, receiver.committed) == ("tool_call", "f", "")
    assert receiver.cursor == "7.1.0"


def test_receiver_finishes_with_its_part_complete() -> None:
    receiver = opened()
    event = finish_at(0)
    assert receiver.receive(event) is None
    assert (receiver.state, receiver.finish) == (State.FINISHED, event)
    assert receiver.parts[0].complete
    receiver.interrupted()
    assert receiver.state is State.FINISHED


def test_receiver_shows_its_tail_until_the_next_open() -> None:
    receiver = opened()
    receiver.receive(Commit(at=0, text="Hi"))
    receiver.receive(Tentative(at=2, text=" you"))
    receiver.interrupted()
    assert (receiver.state, receiver.tail, receiver.cursor) == (State.INTERRUPTED, " you", "7.0.2")
    assert receiver.receive(open_at(2)) == Change(erased=" you")
    assert (receiver.state, receiver.committed, receiver.tail) == (State.OPEN, "Hi", "")
    receiver.interrupted()
    assert receiver.receive(open_at(2)) is None


def test_receiver_drops_its_tail_on_error_and_keeps_committed_text() -> None:
    receiver = opened()
    receiver.receive(Commit(at=0, text="Hi"))
    receiver.receive(Tentative(at=2, text=" you"))
    error = Error(code="engine_failed", message="gone", retryable=False, at=2)
    assert receiver.receive(error) == Change(erased=" you", cause="engine_failed")
    assert (receiver.state, receiver.committed, receiver.tail) == (State.FAILED, "Hi", "")
    assert receiver.failure == Failure("engine_failed", "gone", False)
    assert not receiver.parts[0].complete


def test_receiver_stays_failed_unless_the_failure_is_retryable() -> None:
    receiver = opened()
    receiver.receive(Error(code="engine_failed", message="gone", retryable=False, at=0))
    receiver.interrupted()
    assert receiver.state is State.FAILED
    assert receiver.receive(open_at(0)) is None
    assert receiver.state is State.FAILED


@pytest.mark.parametrize(
    "event",
    [
        Error(code="slow_reader", message="too slow", retryable=True, at=0),
        Commit(at=5, text="x"),
    ],
)
def test_receiver_goes_on_after_a_retryable_failure(event: Error | Commit) -> None:
    receiver = opened()
    receiver.receive(event)
    assert receiver.failure is not None
    receiver.interrupted()
    assert (receiver.state, receiver.failure) == (State.INTERRUPTED, None)
    receiver.receive(open_at(0))
    assert receiver.state is State.OPEN


def test_receiver_is_told_of_broken_bytes_once() -> None:
    receiver = opened()
    receiver.receive(Tentative(at=0, text="a"))
    assert receiver.distrust(RemoteProtocolError("no JSON")) == Change(
        erased="a", cause="protocol_violation"
    )
    assert receiver.distrust(RemoteProtocolError("again", ErrorCode.GAP)) is None
    assert receiver.failure == Failure("protocol_violation", "no JSON", False)


def test_receiver_distrusts_204_where_it_has_had_no_finish() -> None:
    receiver = opened()
    receiver.receive(Commit(at=0, text="Hi"))
    receiver.receive(Tentative(at=2, text="!"))
    receiver.interrupted()
    receiver.nothing_more()
    assert (receiver.state, receiver.tail, receiver.finish) == (State.FAILED, "", None)
    assert receiver.failure is not None
    assert receiver.failure.code == "protocol_violation"
    assert not receiver.parts[0].complete


def test_receiver_takes_204_for_the_end_where_its_cursor_says_finish() -> None:
    receiver = Receiver(cursor="7.0.2.finish", held="Hi")
    receiver.nothing_more()
    assert (receiver.state, receiver.committed) == (State.FINISHED, "Hi")


def test_receiver_keeps_a_cursor_that_says_whether_finish_was_had() -> None:
    receiver = opened()
    assert receiver.cursor == "7.0.0"
    receiver.receive(finish_at(0))
    assert receiver.cursor == "7.0.0.finish"


def test_receiver_goes_on_from_a_cursor_marked_finish() -> None:
    receiver = Receiver(cursor="7.0.2.finish")
    receiver.receive(open_at(2))
    assert (receiver.state, receiver.cursor) == (State.OPEN, "7.0.2")


def test_receiver_does_not_resume_a_stream_that_has_ended() -> None:
    receiver = opened()
    receiver.receive(Error(code="shutting_down", message="", retryable=True, ended=True, at=0))
    receiver.interrupted()
    assert receiver.failure == Failure("shutting_down", "", True, True)


def test_receiver_tells_verified_tail_from_drafted() -> None:
    receiver = opened()
    assert Receiver().verified_tail == ""
    receiver.receive(Tentative(at=0, text="One t", verified=4))
    assert (receiver.tail, receiver.verified_tail) == ("One t", "One ")
    receiver.interrupted()
    receiver.receive(open_at(0))
    assert (receiver.tail, receiver.verified_tail) == ("", "")


def test_receiver_refuses_204_on_an_open_attachment() -> None:
    with pytest.raises(LocalProtocolError, match="NothingMore in state OPEN"):
        opened().nothing_more()


def test_receiver_refuses_text_that_does_not_end_at_its_cursor() -> None:
    with pytest.raises(LocalProtocolError, match=r"7\.0\.5"):
        Receiver(cursor="7.0.5", held="Hi")
    with pytest.raises(LocalProtocolError):
        Receiver(OffsetUnit.UTF8, cursor="7.0.1", held="日")
    with pytest.raises(LocalProtocolError):
        Receiver(held="Hi")


def test_receiver_refuses_a_cursor_that_is_none() -> None:
    with pytest.raises(RequestError):
        Receiver(cursor="7.0")
