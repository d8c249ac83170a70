"""This implementation against tests/vectors/, the cases every implementation runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from protocol import codec, cursor, units
from protocol.edition import Edition
from protocol.errors import RemoteProtocolError, RequestError
from protocol.ledger import Ledger, PartLedger
from protocol.policy import Told, View
from protocol.receiver import Receiver
from protocol.sender import Sender
from protocol.sse import SSEEvent, SSEParser
from protocol.transitions import State
from tests.conformance import steps
from tests.conformance.vectors import (
    CASE_TYPES,
    VECTORS,
    Advance,
    CursorCase,
    ExpectedText,
    Open,
    ReceiverCase,
    SenderCase,
    SSECase,
    StreamCase,
    UnitsCase,
    cases_of,
    name_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from protocol.events import ServerEvent


def splits(data: bytes) -> Iterator[list[bytes]]:
    """The bytes whole, one by one, and in every two pieces."""
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    for i in range(1, len(data)):
        yield [data[:i], data[i:]]


def receive(receiver: Receiver, data: bytes | str) -> None:
    """As any transport does: broken data ends the reading like an event that breaks a rule."""
    try:
        event = codec.decode_event_json(data)
    except RemoteProtocolError as error:
        receiver.distrust(error)
    else:
        if event is not None:
            receiver.receive(event)


def check_text(receiver: Receiver, expect: ExpectedText) -> None:
    found = [(part.kind, part.name, part.committed) for part in receiver.parts]
    assert found == [(part.kind, part.name, part.text) for part in expect.parts]
    if expect.failure is not None:
        assert receiver.state is State.FAILED
        assert receiver.failure is not None
        assert receiver.failure.code == expect.failure
        if expect.retryable is not None:
            assert receiver.failure.retryable is expect.retryable
    else:
        assert receiver.failure is None
        assert receiver.state.name.lower() == expect.state
        assert receiver.tail == expect.tail
        assert receiver.cursor == expect.cursor
        if expect.verified_tail is not None:
            assert receiver.verified_tail == expect.verified_tail


def test_vectors_number_at_least_seventy_and_cover_every_kind() -> None:
    counts = {kind: len(cases_of(kind)) for kind in CASE_TYPES}
    assert all(counts.values())
    assert sum(counts.values()) >= 70


def test_vectors_have_unique_names_in_each_file() -> None:
    for path in VECTORS.glob("*.json"):
        names = [case["name"] for case in msgspec.json.decode(path.read_bytes())["cases"]]
        assert len(set(names)) == len(names), path.name


@pytest.mark.parametrize("case", cases_of("receiver"), ids=name_of)
def test_receiver_holds_the_expected_text(case: ReceiverCase) -> None:
    receiver = Receiver(case.offsets, cursor=case.resume, held=case.held)
    failed_after = None
    for index, event in enumerate(case.events):
        receive(receiver, bytes(event))
        if receiver.state is State.FAILED and failed_after is None:
            failed_after = index
    check_text(receiver, case.expect)
    assert failed_after == case.expect.after


@pytest.mark.parametrize("case", cases_of("stream"), ids=name_of)
def test_receiver_holds_the_expected_text_after_whole_streams(case: StreamCase) -> None:
    bodies = [body if body is None else body.encode() for body in case.attachments]
    longest = max((len(body) for body in bodies if body is not None), default=0)
    ways = [None, 1, *range(2, longest)] if case.every_split else [None]
    for way in ways:
        receiver = Receiver(case.offsets, cursor=case.resume)
        for number, body in enumerate(bodies, start=1):
            if body is None:
                receiver.nothing_more()
                break
            parser = SSEParser()
            for chunk in chunks(body, way):
                for event in parser.feed(chunk):
                    receive(receiver, event.data)
            if number < len(bodies) or receiver.state is not State.FAILED:
                receiver.interrupted()
        check_text(receiver, case.expect)


def chunks(body: bytes, way: int | None) -> list[bytes]:
    """Whole (None), byte by byte (1), or split in two at `way`."""
    match way:
        case None:
            return [body]
        case 1:
            return [body[i : i + 1] for i in range(len(body))]
        case _:
            return [body[:way], body[way:]]


@pytest.mark.parametrize("case", cases_of("sse"), ids=name_of)
def test_sse_parser_gives_the_expected_events(case: SSECase) -> None:
    whole = b"".join(case.chunks)
    ways = [case.chunks, *splits(whole)] if case.every_split else [case.chunks]
    for way in ways:
        bound = case.max_event_bytes
        parser = SSEParser() if bound is None else SSEParser(bound)
        events = [event for chunk in way for event in parser.feed(chunk)]
        assert events == [SSEEvent(e.event, e.data, e.id) for e in case.expect.events], way
        assert parser.retry == case.expect.retry
        if case.expect.last_event_id is not None:
            assert parser.last_event_id == case.expect.last_event_id
        code = parser.failure.code if parser.failure is not None else None
        assert code == case.expect.failure


@pytest.mark.parametrize("case", cases_of("units"), ids=name_of)
def test_units_measure_text(case: UnitsCase) -> None:
    assert len(case.lengths) == 3
    for unit, length in case.lengths.items():
        assert units.length(case.text, unit) == length
    for unit, boundaries in case.boundaries.items():
        for offset, index in boundaries:
            assert units.index(case.text, offset, unit) == index
    for unit, offsets in case.inside.items():
        for offset in offsets:
            with pytest.raises(ValueError, match="inside a code point"):
                units.index(case.text, offset, unit)


@pytest.mark.parametrize("case", cases_of("cursor"), ids=name_of)
def test_cursor_is_parsed_or_refused(case: CursorCase) -> None:
    if case.expect.failure is not None:
        with pytest.raises(RequestError) as refusal:
            cursor.parse(case.text)
        assert refusal.value.code == case.expect.failure
        return
    parsed = cursor.parse(case.text)
    expect = case.expect
    assert parsed == (expect.epoch, expect.part, expect.offset, expect.mark)
    assert str(parsed) == case.text


class GivenPolicy:
    """Allows what the step of a case says."""

    wants_drafts = True

    heeds_told = True

    def __init__(self) -> None:
        self.described: dict[str, object] = {"kind": "x"}
        self.given: tuple[int, int] | str = "all"

    def view(self, part: PartLedger, now: float, told: Told | None) -> View:
        match self.given:
            case "all":
                return View(part.committed_length, part.total_length)
            case "hold":
                return View(part.committed_length, part.committed_length)
            case (int(committed), int(shown)):
                return View(committed, shown)
            case _:
                raise ValueError(f"no view: {self.given}")


def check_events(events: list[ServerEvent], expect: list[dict[str, object]]) -> None:
    found = [msgspec.json.decode(codec.encode_json(event)) for event in events]
    for event, expected in zip(found, expect, strict=True):
        stats, expected_stats = event.pop("stats", {}), dict(expected).pop("stats", {})
        assert event == {key: value for key, value in expected.items() if key != "stats"}
        assert stats == pytest.approx(expected_stats, abs=1e-9)


@pytest.mark.parametrize("case", cases_of("sender"), ids=name_of)
def test_sender_sends_exactly_the_expected_events(case: SenderCase) -> None:
    ledger = Ledger()
    policy = GivenPolicy()
    sender = Sender(
        Edition(
            ledger,
            policy,
            stream="s1",
            epoch=7,
            model="m",
            unit=case.offsets,
            include=case.include,
            started_at=0.0,
        )
    )
    for step in case.steps:
        match step:
            case Open(failure=None):
                position = None if step.cursor is None else cursor.parse(step.cursor)
                check_events([sender.open(position)], step.expect)
            case Open():
                with pytest.raises(RequestError) as refusal:
                    sender.open(cursor.parse(step.cursor or ""))
                assert refusal.value.code == step.failure
            case Advance():
                policy.given = step.view
                check_events(sender.advance(step.now), step.expect)
            case _:
                steps.apply(step, ledger)
