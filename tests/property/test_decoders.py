"""Every decoder of what comes from outside takes it, or refuses it in its own words.

Random bytes, and valid input that was mutated. FUZZ_EXAMPLES (40): examples for each decoder.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from engine import frames
from gateway.access import Principal
from gateway.backends.base import BackendEvent, Drafted, Finished, PartBegins, Verified
from gateway.backends.local.process import EngineLinkError, decode_frame
from gateway.backends.scripted import load_traces
from gateway.config import BUILT_IN_PROFILES, DeliveryConfig, GatewayConfig, LimitsConfig
from gateway.delivery import Connection
from gateway.errors import ConfigError
from gateway.policies import resolve_policy
from gateway.streams import StreamRegistry
from gateway.transports.openai.requests import (
    decode_chat,
    decode_completion,
    from_chat,
    from_completion,
)
from gateway.transports.requests import read_cursor, read_query
from protocol import codec, cursor
from protocol.errors import ErrorCode, RemoteProtocolError, RequestError
from protocol.events import Token
from protocol.receiver import Receiver
from protocol.requests import Chunk, GenerationRequest, Hold, StreamRetract
from protocol.sse import EventWriter, SSEParser
from protocol.transitions import State
from tests.property.mutations import mutated
from tests.property.test_codec import events, json_values, objects
from tests.unit.gateway.doubles import FakeClock, HandBackend

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from protocol.events import IncludeItem

fuzz = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "40")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

REQUEST = {
    "messages": [{"role": "user", "content": "a\u00e9\U0001f44d"}],
    "max_tokens": 3,
    "temperature": 0.5,
    "seed": 2**63 - 1,
    "stop": ["x"],
    "logit_bias": {"7": -1.5},
    "draft": {"drafter": "ngram", "length": 4},
    "policy": {"kind": "chunk", "unit": "word", "max_delay_ms": 5},
    "include": ["tokens", "logprobs"],
}
MESSAGES: list[Any] = [
    {"type": "start", "ref": "a", "request": REQUEST},
    {"type": "attach", "ref": "a", "stream": "s", "cursor": "7.0.1", "offsets": "utf-16"},
    {"type": "ack", "ref": "a", "at": 3, "part": 1},
    {"type": "cancel", "ref": "a"},
]
CHAT = {
    "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}],
    "stream": True,
    "stream_options": {"include_usage": True},
    "stop": ["a"],
    "prediction": {"type": "content", "content": "x"},
    "logit_bias": {"1": 2},
}
COMPLETION = {"prompt": ["a"], "max_tokens": 3, "n": 1, "echo": False, "user": {"a": [1]}}
QUERIES = (
    b"policy=chunk:word&offsets=utf-16&include=tokens,timing&cursor=7.0.12",
    b"policy=%7B%22kind%22%3A%22retract%22%2C%22budget%22%3A0.5%7D&include=tokens",
    b"cursor=7.1.0.finish&policy=retract:0.05",
)
POLICIES = (
    *("hold", "retract:12", "retract:0.05", "chunk:sentence", "tts"),
    '{"kind":"chunk","unit":"word","locale":"pt-BR","max_delay_ms":50}',
)
CURSORS = ("7.0.12", "1795545956344.3.0.finish", "9007199254740991.0.0.error")
COUNTS = frames.TokenCounts(prompt=1, completion=3, drafted=4, accepted=2, steps=2)
FRAMES: list[frames.FromEngine] = [
    frames.Step([("s", frames.Drafted("tail", [frames.Token(7, 4, -0.5, 0.25)]))]),
    frames.Step([("s", frames.Verified("text", "tail", "draft_rejected", [], COUNTS))]),
    frames.Step([("s", frames.Finished("stop", COUNTS)), ("t", frames.Failed("x", "y", True))]),
    frames.Accepted("s", 3, 42),
    frames.Rejected("s", "invalid_value", "no", "prompt"),
    frames.Loading("weights", 0.5),
    frames.Ready("m", 128, 1000, "float32", ["ngram"], 10, 16),
    frames.Fatal("internal", "gone"),
    frames.Pong(0.5),
]
CONFIGURATION = b"""
[server]
port = 8000
allowed_origins = ["https://app.example"]
allowed_hosts = ["gateway.example"]
[limits]
body_bytes = 1000
exempt_addresses = ["10.0.0.0/8"]
[delivery]
grace_s = 3.5
[policies]
default = "voice"
[policies.profiles.voice]
kind = "chunk"
unit = "sentence"
"""
TRACE = b"""{"event": "drafted", "tail": "Hi", "tokens": [{"id": 1, "n": 2}]}
{"after_ms": 5, "event": "verified", "text": "Hi"}
{"after_ms": 5.5, "event": "finished", "reason": "stop"}
"""

packed = msgspec.msgpack.encode
jsons = (objects | json_values).map(msgspec.json.encode)
packs = (objects | json_values).map(packed)


def like(*valid: bytes) -> st.SearchStrategy[bytes]:
    return mutated(st.sampled_from(valid)) | st.binary(max_size=80)


def like_json(*valid: object) -> st.SearchStrategy[bytes]:
    return like(*map(msgspec.json.encode, valid)) | jsons


def ends_in_words(decode: Callable[[], object], refusal: type[Exception]) -> None:
    """`decode` gives something, or raises its own kind of refusal, which says why."""
    try:
        decode()
    except refusal as error:
        assert str(error)


@fuzz
@given(data=like_json(REQUEST))
def test_request_of_any_bytes_is_taken_or_refused(data: bytes) -> None:
    ends_in_words(lambda: codec.decode_request(data), RequestError)


@fuzz
@given(data=like_json(*MESSAGES))
def test_message_of_any_bytes_is_taken_or_refused(data: bytes) -> None:
    ends_in_words(lambda: codec.decode_message_json(data), RequestError)


@fuzz
@given(data=like(*map(packed, MESSAGES)) | packs)
def test_packed_message_of_any_bytes_is_taken_or_refused(data: bytes) -> None:
    ends_in_words(lambda: codec.decode_message_msgpack(data), RequestError)


@fuzz
@given(data=like_json(CHAT))
def test_chat_of_any_bytes_is_taken_or_refused(data: bytes) -> None:
    ends_in_words(lambda: from_chat(decode_chat(data), 2048), RequestError)


@fuzz
@given(data=like_json(COMPLETION))
def test_completion_of_any_bytes_is_taken_or_refused(data: bytes) -> None:
    ends_in_words(lambda: from_completion(decode_completion(data), 2048), RequestError)


@pytest.mark.parametrize("opening", [b'{"a":', b"["])
@pytest.mark.parametrize("decode", [codec.decode_request, decode_chat, decode_completion])
@pytest.mark.parametrize("depth", [200, 400, 600, 900, 950, 990, 1000, 100_000])
def test_request_of_any_depth_is_taken_or_refused(
    decode: Callable[[bytes], object], opening: bytes, depth: int
) -> None:
    closing = b"]" if opening == b"[" else b"}"
    nested = b'{"max_tokens":3.0,"prompt":"a","messages":[],"x":%b1%b}'
    data = nested % (opening * depth, closing * depth)
    ends_in_words(lambda: decode(data), RequestError)


@fuzz
@given(data=mutated(events.map(codec.encode_json)) | jsons | st.binary(max_size=80))
def test_event_of_any_bytes_is_taken_or_distrusted(data: bytes) -> None:
    ends_in_words(lambda: codec.decode_event_json(data), RemoteProtocolError)


@fuzz
@given(data=mutated(events.map(codec.encode_msgpack)) | packs | st.binary(max_size=80))
def test_packed_event_of_any_bytes_is_taken_or_distrusted(data: bytes) -> None:
    ends_in_words(lambda: codec.decode_event_msgpack(data), RemoteProtocolError)


@st.composite
def wires(draw: st.DrawFn) -> bytes:
    writer = EventWriter()
    return b"".join(writer.encode(event) for event in draw(st.lists(events, max_size=4)))


@fuzz
@given(data=mutated(wires()), size=st.integers(1, 50))
def test_event_stream_of_any_bytes_is_parsed_or_distrusted(data: bytes, size: int) -> None:
    parser = SSEParser(max_event_bytes=200)
    for start in range(0, len(data), size):
        for event in parser.feed(data[start : start + size]):
            ends_in_words(
                lambda found=event: codec.decode_event_json(found.data), RemoteProtocolError
            )
    if parser.failure is not None:
        assert parser.feed(data) == []


@fuzz
@given(data=like(*(text.encode() for text in CURSORS)))
def test_cursor_of_any_text_is_taken_or_refused(data: bytes) -> None:
    text = data.decode("latin-1")
    try:
        assert str(cursor.parse(text)) == text
    except RequestError as error:
        assert (error.code, error.param) == (ErrorCode.BAD_CURSOR, "cursor")


@fuzz
@given(data=like(*(text.encode() for text in POLICIES)))
def test_policy_of_any_text_is_taken_or_refused(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    ends_in_words(lambda: resolve_policy(text, BUILT_IN_PROFILES, "chat"), RequestError)


@fuzz
@given(query=like(*QUERIES), last_event_id=st.just(b"") | like(*(c.encode() for c in CURSORS)))
def test_query_of_any_bytes_is_taken_or_refused(query: bytes, last_event_id: bytes) -> None:
    headers = [(b"last-event-id", last_event_id)]
    request = Request({"type": "http", "query_string": query, "headers": headers})

    def read() -> None:
        wanted = read_query(request)
        read_cursor(request, wanted)
        resolve_policy(wanted.policy, BUILT_IN_PROFILES, "chat")

    ends_in_words(read, RequestError)


@fuzz
@given(data=like(*map(packed, FRAMES)) | packs)
def test_frame_of_any_bytes_is_taken_or_ends_its_engine(data: bytes) -> None:
    ends_in_words(lambda: decode_frame(data), EngineLinkError)


@pytest.mark.parametrize("data", [b"\x91" * 100_000, b"\x92\xa5fatal\xa2\xff\xfe"])
def test_frame_that_no_decoder_can_follow_ends_its_engine(data: bytes) -> None:
    with pytest.raises(EngineLinkError):
        decode_frame(data)


@fuzz
@given(data=like(CONFIGURATION))
def test_configuration_of_any_bytes_is_taken_or_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "wetink.toml"
    path.write_bytes(data)
    ends_in_words(lambda: GatewayConfig.load(path, env={}), ConfigError)


@fuzz
@given(
    name=st.sampled_from(("SERVER_PORT", "SERVER_ALLOWED_HOSTS", "DELIVERY_GRACE_S", "X"))
    | st.text(max_size=8),
    value=st.text(max_size=20),
)
def test_environment_of_any_text_is_taken_or_refused(name: str, value: str) -> None:
    ends_in_words(lambda: GatewayConfig.load(env={f"WETINK_{name}": value}), ConfigError)


@fuzz
@given(data=like(TRACE), suffix=st.sampled_from((".json", ".jsonl")))
def test_trace_of_any_bytes_is_taken_or_refused(data: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"trace{suffix}"
    path.write_bytes(data if suffix == ".jsonl" else b"[%b]" % b",".join(data.splitlines()))
    ends_in_words(lambda: load_traces(path), ConfigError)


wild_tokens = st.lists(
    st.builds(
        Token,
        id=st.sampled_from((0, 7, -1, 2**32, 2**63)),
        n=st.integers(-2, 5) | st.just(2**40),
        logprob=st.none() | st.floats(),
        confidence=st.none() | st.floats(),
    ),
    max_size=4,
)
short = st.text(alphabet="ab \u00e9\U0001f44d\ud83d", max_size=5)
causes = st.none() | st.sampled_from(("draft_rejected", "x"))


@st.composite
def wild_verdicts(draw: st.DrawFn) -> Verified:
    """Of tokens that cover the text, which is not to say that they make sense."""
    text, first = draw(short), draw(st.integers(-2, 7))
    tokens = [Token(1, first), Token(2, len(text) - first)]
    return Verified(text, draw(short), "x", draw(st.sampled_from((tokens, []))))


wild_events = st.lists(
    st.builds(Drafted, tail=short, tokens=wild_tokens, cause=causes)
    | st.builds(Verified, text=short, tail=short, cause=causes, tokens=wild_tokens)
    | wild_verdicts()
    | st.builds(PartBegins, kind=st.sampled_from(("text", "tool_call", "")), name=st.none() | short)
    | st.builds(Finished, reason=st.sampled_from(("stop", "length", "cancelled", ""))),
    max_size=5,
)


@fuzz
@given(events=wild_events, times=st.sampled_from((1, 40)))
def test_stream_takes_any_events_of_its_backend_or_fails_in_words(
    events: list[BackendEvent], times: int
) -> None:
    """What a frame that decodes may say, sensible or not."""

    async def run() -> None:
        clock = FakeClock()
        limits = LimitsConfig(kept_streams=1)
        registry = StreamRegistry(
            HandBackend(), clock, epoch=7, limits=limits, delivery=DeliveryConfig()
        )
        owner = Principal.unbounded(clock.now)
        request = GenerationRequest(prompt="x", model="hand", seed=1)
        stream = await registry.start(request, owner)
        policies = (Hold(), StreamRetract(budget=0.5), Chunk(unit="word", tail=True))
        include: list[IncludeItem] = ["tokens", "logprobs", "confidence"]
        attachments = [
            stream.attach(each, connection=Connection(clock, {}, owner), include=include)
            for each in policies
        ]
        receivers = [Receiver() for _ in policies]
        for event in events * times:
            stream.accept(event)
            for attachment, receiver in zip(attachments, receivers, strict=True):
                for sent in attachment.collect():
                    receiver.receive(sent)
        for receiver in receivers:
            assert receiver.failure is None or receiver.failure.code == "engine_failed"
            if stream.ended:
                assert receiver.state in (State.FINISHED, State.FAILED)

    asyncio.run(run())
