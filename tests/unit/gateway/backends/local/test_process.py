"""Frames of the engine as the gateway decodes them. Real processes: tests/integration."""

from __future__ import annotations

from typing import Any, cast, get_args

import msgspec
import pytest

from engine import frames
from gateway.backends import base
from gateway.backends.local.process import EngineLinkError, Step, decode_frame

TOKENS = [frames.Token(7, 2, -0.5, 0.25), frames.Token(8, 0)]
COUNTS = frames.TokenCounts(prompt=1, cached_prompt=2, completion=3, drafted=4, accepted=5, steps=6)
EVENTS: dict[type, Any] = {
    base.Drafted: frames.Drafted("tail", TOKENS),
    base.Verified: frames.Verified("text", "tail", "draft_rejected", TOKENS, COUNTS),
    base.Finished: frames.Finished("stop", COUNTS),
    base.Failed: frames.Failed("internal", "broken", True),
}
OTHERS = [
    frames.Accepted("s", 3, 42),
    frames.Rejected("s", "invalid_value", "no", "prompt"),
    frames.Loading("weights", 0.5),
    frames.Ready("m", 128, 1000, "float32", ["ngram"], 10, 16, "ngram"),
    frames.Fatal("internal", "gone"),
    frames.Pong(0.5, frames.Load(1, 2, 3, 4, 5, 6, 7)),
]


def decoded(frame: frames.FromEngine) -> object:
    return decode_frame(msgspec.msgpack.encode(frame))


def fields_of(struct: Any) -> object:
    return msgspec.to_builtins({name: getattr(struct, name) for name in struct.__struct_fields__})


def those_of(frame: Any, event: Any) -> Any:
    """What `event` says where `frame` says something: the gateway's may hold more."""
    if not isinstance(frame, dict):
        return event
    return {name: those_of(value, event[name]) for name, value in cast("Any", frame).items()}


def test_frames_under_test_are_all_there_are() -> None:
    events = get_args(get_args(frames.EngineEvent)[1])
    assert {type(event) for event in EVENTS.values()} == set(events)
    assert {type(frame) for frame in OTHERS} == set(get_args(frames.FromEngine)) - {frames.Step}


@pytest.mark.parametrize("wanted", EVENTS, ids=lambda kind: kind.__name__)
def test_process_decodes_the_engines_events_as_the_gateways_own(wanted: type) -> None:
    sent = EVENTS[wanted]
    step = decoded(frames.Step([("s", sent)]))
    assert isinstance(step, Step)
    ((stream, event),) = step.events
    assert (stream, type(event)) == ("s", wanted)
    expected: Any = fields_of(sent)
    found: Any = fields_of(event)
    assert those_of(expected, found) == expected


@pytest.mark.parametrize("frame", OTHERS, ids=lambda frame: type(frame).__name__)
def test_process_decodes_every_other_frame_as_it_was_sent(frame: frames.FromEngine) -> None:
    assert decoded(frame) == frame


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x91\xa4step", b"\x92\xa6nobody\x01"])
def test_process_reports_what_is_not_a_frame(data: bytes) -> None:
    with pytest.raises(EngineLinkError, match="not a frame"):
        decode_frame(data)
