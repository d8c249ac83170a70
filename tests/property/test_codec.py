"""Codecs: what is written can be read; what cannot be read is refused in words, never otherwise."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import codec
from protocol.errors import ErrorCode, RemoteProtocolError, RequestError
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
    Token,
    Usage,
)
from protocol.receiver import Receiver
from tests.property.traces import patient

if TYPE_CHECKING:
    from protocol.events import ServerEvent

small = st.integers(0, 6)
text = st.text(max_size=6)
cause = st.sampled_from(("draft_rejected", "x"))
tokens = st.none() | st.lists(st.builds(Token, id=small, n=small), max_size=2)
events: st.SearchStrategy[ServerEvent] = st.one_of(
    st.builds(
        Open,
        stream=st.none() | st.just("s1"),
        v=st.sampled_from((1, 1, 1, 2)),
        epoch=st.just(7),
        model=text,
        policy=st.just({"kind": "hold"}),
        offsets=st.sampled_from(OffsetUnit),
        part=st.integers(0, 1),
        at=st.integers(0, 2),
        seed=st.none() | st.integers(0, 2**63 - 1),
    ),
    st.builds(
        Tentative,
        verified=st.none() | small,
        at=small,
        text=text,
        tokens=tokens,
        t=st.none() | st.just(1.5),
    ),
    st.builds(
        Commit,
        at=small,
        text=text,
        retract=st.none() | st.builds(Retraction, at=small, n=small, cause=cause),
        cut_short=st.booleans(),
        tokens=tokens,
    ),
    st.builds(Retract, at=small, n=st.integers(-1, 6), cause=cause),
    st.builds(Part, part=st.integers(0, 2), kind=text, name=st.none() | text),
    st.builds(
        Finish, at=small, reason=text, usage=st.builds(Usage), digest=text, stats=st.builds(Stats)
    ),
    st.builds(
        Error, code=text, message=text, retryable=st.booleans(), at=small, ended=st.booleans()
    ),
    st.builds(Heartbeat),
)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
FIELDS = (
    *("prompt", "messages", "max_tokens", "temperature", "seed", "stop", "logit_bias", "draft"),
    *("policy", "offsets", "include", "type", "ref", "request", "stream", "cursor", "at", "part"),
)
KNOWN_VALUES = (
    *("a", 1, 0.5, {"kind": "chunk", "unit": "word"}, {"kind": "hold", "x": 1}, ["a"], "start"),
    *("attach", "ack", {"prompt": "a"}, {"12": 3}, [{"role": "user", "content": "a"}]),
)
# Objects that are nearly requests, so that decoding gets past the first field.
objects = st.dictionaries(
    st.sampled_from(FIELDS) | st.text(max_size=3),
    st.sampled_from(KNOWN_VALUES) | json_values,
    max_size=5,
)


@patient
@given(event=events)
def test_codec_reads_what_it_wrote(event: ServerEvent) -> None:
    assert codec.decode_event_json(codec.encode_json(event)) == event
    assert codec.decode_event_msgpack(codec.encode_msgpack(event)) == event


@patient
@given(event=events)
def test_codec_writes_the_same_fields_in_both_encodings(event: ServerEvent) -> None:
    as_json = json.loads(codec.encode_json(event))
    assert as_json == msgspec.msgpack.decode(codec.encode_msgpack(event))
    assert as_json["type"] == type(event).__name__.lower()


@patient
@given(events=st.lists(events, max_size=8))
def test_reader_never_raises_whatever_events_come(events: list[ServerEvent]) -> None:
    reader = Receiver()
    for event in events:
        committed = [part.committed for part in reader.parts]
        failed = reader.failure
        change = reader.receive(event)
        after = [part.committed for part in reader.parts]
        assert all(new.startswith(old) for old, new in zip(committed, after, strict=False))
        if failed is not None:
            assert (change, reader.failure, after) == (None, failed, committed)


@settings(patient, max_examples=200)
@given(value=json_values | objects)
def test_codec_refuses_a_bad_request_in_words(value: object) -> None:
    encoded = msgspec.json.encode(value)
    for decode in (codec.decode_request, codec.decode_message_json):
        refused_or_taken(decode, encoded)
    refused_or_taken(codec.decode_message_msgpack, msgspec.msgpack.encode(value))


@patient
@given(data=st.binary(max_size=60))
def test_codec_refuses_bytes_that_are_no_request(data: bytes) -> None:
    for decode in (
        codec.decode_request,
        codec.decode_message_json,
        codec.decode_message_msgpack,
    ):
        refused_or_taken(decode, data)


def refused_or_taken(decode: Any, data: bytes) -> None:
    try:
        decode(data)
    except RequestError as error:
        assert error.message
        assert isinstance(error.code, ErrorCode)


@patient
@given(data=st.binary(max_size=60) | objects.map(msgspec.json.encode))
def test_codec_refuses_bytes_that_are_no_event(data: bytes) -> None:
    for decode in (codec.decode_event_json, codec.decode_event_msgpack):
        try:
            decode(data)
        except RemoteProtocolError as error:
            assert error.code is ErrorCode.PROTOCOL_VIOLATION
