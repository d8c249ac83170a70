from __future__ import annotations

from typing import cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.delivery.shaping import padded_message, padded_stream
from protocol.codec import (
    decode_event_json,
    decode_event_msgpack,
    encode_json,
    encode_msgpack,
)
from protocol.events import Commit, OffsetUnit, Open
from protocol.sse import SSEParser

PAD = 1024
LONGEST = Open(
    stream="s" * 22,
    v=1,
    epoch=7,
    model="m",
    policy={"kind": "hold"},
    offsets=OffsetUnit.UTF8,
    part=3,
    at=12,
    kind="tool_call",
    name="look_up",
    seed=2**53,
    ref="r" * 128,
    degraded=["shorter_drafts"],
    draft_model="d",
)


@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=3 * PAD))
def test_message_is_a_multiple_of_the_pad_long_and_says_the_same(text: str) -> None:
    event = Commit(at=0, text=text, stream="s")
    as_text = padded_message(encode_json(event).decode(), PAD)
    packed = padded_message(encode_msgpack(event), PAD)
    assert isinstance(as_text, str)
    assert isinstance(packed, bytes)
    assert len(as_text.encode()) % PAD == len(packed) % PAD == 0
    assert decode_event_json(as_text) == decode_event_msgpack(packed) == event


def test_event_with_the_most_fields_can_be_padded() -> None:
    packed = padded_message(encode_msgpack(LONGEST), PAD)
    assert isinstance(packed, bytes)
    assert len(packed) == PAD
    assert decode_event_msgpack(packed) == LONGEST


@pytest.mark.parametrize("fields", [1, 14, 15, 16, 300])
def test_field_is_added_whatever_the_head_of_the_map(fields: int) -> None:
    message = {f"f{number}": number for number in range(fields)}
    packed = padded_message(msgspec.msgpack.encode(message), PAD)
    assert len(packed) % PAD == 0
    said = msgspec.msgpack.decode(cast("bytes", packed))
    assert set(said.pop("pad")) <= {"0"}
    assert said == message


@pytest.mark.parametrize("lacking", [0, 1, 2, 3, 100, PAD - 20])
def test_event_stream_is_filled_up_with_what_readers_skip(lacking: int) -> None:
    event = b"data: " + b"x" * (PAD - lacking - len(b"data: \n\n")) + b"\n\n"
    data = padded_stream(event, PAD)
    assert len(data) == PAD
    parser = SSEParser()
    (first, second) = parser.feed(data + b"data: next\n\n")
    assert (len(first.data), second.data) == (len(event) - len(b"data: \n\n"), "next")
