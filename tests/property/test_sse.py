"""SSE: any chunking of bytes gives the same events, and no bytes upset the parser."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from protocol import codec
from protocol.sse import EventWriter, SSEParser, comment, retry
from tests.property.test_codec import events
from tests.property.traces import patient

if TYPE_CHECKING:
    from protocol.events import ServerEvent
    from protocol.sse import SSEEvent

# Bytes that look like event streams, with every line end and half code points.
fragments = st.lists(
    st.sampled_from(
        (
            *(b"data", b":", b" ", b"x", b"\n", b"\r", b"\r\n", b"id: 7", b"event: a", b"retry: 5"),
            *(b"data: y\n\n", b"\xef\xbb\xbf", b"\xf0\x9f", b"\x91\x8d", b"\0", b": comment\n"),
        )
    ),
    max_size=20,
).map(b"".join)


def parse(chunks: list[bytes], bound: int = 1000) -> tuple[list[SSEEvent], object]:
    parser = SSEParser(bound)
    found = [event for chunk in chunks for event in parser.feed(chunk)]
    state = (parser.last_event_id, parser.retry, parser.failure is not None)
    return found, state


@patient
@given(data=fragments | st.binary(max_size=50), cuts=st.lists(st.integers(0, 60), max_size=5))
def test_parser_gives_the_same_events_for_any_chunking(data: bytes, cuts: list[int]) -> None:
    ends = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[start:end] for start, end in zip(ends, ends[1:], strict=False)]
    assert parse([data]) == parse(pieces) == parse([data[i : i + 1] for i in range(len(data))])


@patient
@given(data=fragments, bound=st.integers(1, 12))
def test_parser_keeps_its_bound_for_any_chunking(data: bytes, bound: int) -> None:
    whole, _ = parse([data], bound)
    single, _ = parse([data[i : i + 1] for i in range(len(data))], bound)
    assert whole == single
    assert all(len(event.data.replace("\n", "").encode()) <= bound for event in whole)


@patient
@given(sent=st.lists(events, max_size=5))
def test_parser_reads_what_the_writer_wrote(sent: list[ServerEvent]) -> None:
    writer = EventWriter()
    wire = retry(1000) + b"".join(comment("x") + writer.encode(event) for event in sent)
    found, state = parse([wire], 100_000)
    assert [codec.decode_event_json(event.data) for event in found] == sent
    assert {event.event for event in found} <= {"message"}
    assert state == (found[-1].id if found else "", 1000, False)
