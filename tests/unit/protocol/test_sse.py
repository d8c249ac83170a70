"""SSE writing, and the parser's state between calls. What it parses is in tests/vectors/."""

from __future__ import annotations

from protocol import sse
from protocol.cursor import Cursor
from protocol.events import (
    Commit,
    Error,
    Finish,
    Heartbeat,
    OffsetUnit,
    Open,
    Part,
    Retract,
    Stats,
    Tentative,
    Usage,
)
from protocol.sse import EventWriter, SSEEvent, SSEParser


def test_sse_frames_an_event_with_its_cursor() -> None:
    frame = sse.encode(Commit(at=0, text="a\nb"), Cursor(7, 0, 3))
    assert frame == (b'id: 7.0.3\ndata: {"type":"commit","at":0,"text":"a\\nb"}\n\n')
    assert sse.encode(Heartbeat(), None) == b'data: {"type":"heartbeat"}\n\n'


def test_sse_writes_comments_and_retry() -> None:
    assert sse.comment("hello") == b": hello\n\n"
    assert sse.retry(1500) == b"retry: 1500\n\n"


def test_sse_writer_gives_ids_where_the_watermark_is_known_to_stand() -> None:
    writer = EventWriter()
    opening = Open(
        v=1, epoch=7, model="m", policy={}, offsets=OffsetUnit.UTF8, part=1, at=10, stream="s1"
    )
    finish = Finish(at=1, reason="stop", usage=Usage(), digest="", stats=Stats())
    sent = [
        (opening, "7.1.10"),
        (Tentative(at=10, text="日本"), None),
        (Commit(at=10, text="日"), "7.1.13"),
        (Retract(at=13, n=3, cause="x"), None),
        (Part(part=2, kind="text"), "7.2.0"),
        (Commit(at=0, text="a"), "7.2.1"),
        (Heartbeat(), None),
        (finish, "7.2.1.finish"),
        (Error(code="slow_reader", message="", retryable=True, at=1), None),
        (Error(code="policy_failed", message="", retryable=False, at=1), "7.2.1.error"),
        (Error(code="x", message="", retryable=True, ended=True, at=1), "7.2.1.error"),
    ]
    for event, cursor in sent:
        frame = writer.encode(event)
        assert frame.startswith(b"data: " if cursor is None else f"id: {cursor}\n".encode())


def test_sse_parser_keeps_what_a_stream_has_set() -> None:
    parser = SSEParser()
    assert (parser.last_event_id, parser.retry, parser.failure) == ("", None, None)
    assert parser.feed(b"retry: 5\nid: 7.0.1\n") == []
    assert (parser.last_event_id, parser.retry) == ("", 5)
    assert parser.feed(b"data: x\n\n") == [SSEEvent("message", "x", "7.0.1")]
    assert parser.last_event_id == "7.0.1"


def test_sse_parser_stops_at_a_failure() -> None:
    parser = SSEParser(10)
    assert parser.feed(b"data: x\n\n") != []
    assert parser.feed(b"data: " + b"y" * 20) == []
    assert parser.failure is not None
    assert parser.feed(b"\n\ndata: x\n\n") == []


def test_sse_parser_refuses_bytes_that_are_not_utf8() -> None:
    parser = SSEParser()
    assert parser.feed(b"data: x\n\ndata: \xff\n\ndata: y\n\n") == [SSEEvent("message", "x", "")]
    assert parser.failure is not None
    assert "UTF-8" in parser.failure.message


def test_sse_parser_ignores_a_retry_of_absurd_length() -> None:
    parser = SSEParser()
    parser.feed(b"retry: 7\nretry: " + b"9" * 5000 + b"\n")
    assert parser.retry == 7


def test_parser_fails_on_empty_data_lines_over_its_bound() -> None:
    parser = SSEParser(100)
    assert parser.feed(b"data\n" * 200) == []
    assert parser.failure is not None
