"""Codec: every way a request can be wrong, and what its author is told."""

from __future__ import annotations

import json

import msgspec
import pytest

from protocol import codec
from protocol.errors import ErrorCode, RemoteProtocolError, RequestError
from protocol.events import Commit, Heartbeat, OffsetUnit
from protocol.requests import Ack, Attach, Chunk, Detach, GenerationRequest, Message, Start


def body(**fields: object) -> bytes:
    return json.dumps({"prompt": "a", **fields}).encode()


@pytest.mark.parametrize(
    ("data", "code", "param", "said"),
    [
        # not JSON at all
        (b"", "malformed_json", None, "truncated"),
        (b"{", "malformed_json", None, "truncated"),
        (b'{"prompt":"a"} x', "malformed_json", None, "trailing"),
        (b'{"prompt":"\xff"}', "malformed_json", None, "utf-8"),
        (b'{"prompt":"\\ud800"}', "malformed_json", None, ""),
        (b'{"prompt":"\\udc00x"}', "malformed_json", None, "surrogate"),
        (b'{"prompt":"a","temperature":NaN}', "malformed_json", None, ""),
        (b'{"prompt":"a","temperature":Infinity}', "malformed_json", None, ""),
        (b'{"prompt":1', "malformed_json", None, ""),
        (b"[" * 100_000, "malformed_json", None, "recursion"),
        (b'{"x":' + b"[" * 100_000, "malformed_json", None, "recursion"),
        (b'{"policy":{"kind":' + b'{"a":' * 100_000, "malformed_json", None, "recursion"),
        # not an object
        (b"[]", "invalid_value", None, "the body must be an object"),
        (b'"hello"', "invalid_value", None, "not 'hello'"),
        (b"null", "invalid_value", None, "object"),
        # fields
        (b"{}", "missing_field", "prompt", "either prompt or messages"),
        (body(messages=[{"role": "user", "content": "x"}]), "invalid_value", "messages", "both"),
        (body(temprature=1), "unknown_field", "temprature", "temperature, top_k"),
        (b'{"prompt":"a","prompt":"b"}', "invalid_value", "prompt", "twice"),
        (b'{"prompt":"a","draft":{"length":1,"length":2}}', "invalid_value", "length", "twice"),
        (body(**{"x" * 500: 1}), "unknown_field", "x" * 80 + "…", "allowed here"),
        (b'{"x` - at `$.nope":1}', "unknown_field", "nope.x", ""),
        # values
        (b'{"prompt":1}', "invalid_value", "prompt", "a string, not 1"),
        (body(max_tokens=0), "invalid_value", "max_tokens", "an integer of at least 1, not 0"),
        (body(max_tokens=-5), "invalid_value", "max_tokens", "not -5"),
        (body(max_tokens="3"), "invalid_value", "max_tokens", "an integer of at least 1, not '3'"),
        (body(max_tokens=1.5), "invalid_value", "max_tokens", "not 1.5"),
        (body(temperature=11), "invalid_value", "temperature", "at least 0.0 and at most 10.0"),
        (b'{"prompt":"a","temperature":1e999}', "invalid_value", "temperature", "at most 10.0"),
        (body(top_p=0), "invalid_value", "top_p", "more than 0.0 and at most 1.0"),
        (body(seed=2**63), "invalid_value", "seed", "at most 9223372036854775807"),
        (b'{"prompt":"a","seed":' + b"9" * 5000 + b"}", "invalid_value", "seed", "at least 0"),
        (body(seed=-1), "invalid_value", "seed", "not -1"),
        (body(ignore_eos=1), "invalid_value", "ignore_eos", "true or false"),
        (body(stop="a"), "invalid_value", "stop", "a list of at most 16 items"),
        (body(stop=["a"] * 17), "invalid_value", "stop", "at most 16 items"),
        (
            body(stop=["a", "b", ""]),
            "invalid_value",
            "stop[2]",
            "at least 1 and at most 512 characters, not ''",
        ),
        (body(stop=["a", 7]), "invalid_value", "stop[1]", "a string"),
        (body(logit_bias={"1": "x"}), "invalid_value", "logit_bias", "a number of at least -100.0"),
        (body(logit_bias={"a": 1}), "invalid_value", "logit_bias.a", "token id"),
        (body(logit_bias={"١": 1}), "invalid_value", "logit_bias.١", "token id"),
        (body(draft={"length": 17}), "invalid_value", "draft.length", "at most 16"),
        (
            body(draft={"drafter": "x"}),
            "invalid_value",
            "draft.drafter",
            "one of combined, head, model, ngram",
        ),
        (body(offsets="utf-7"), "invalid_value", "offsets", "one of codepoint, utf-16, utf-8"),
        (
            body(include=["x"]),
            "invalid_value",
            "include[0]",
            "confidence, logprobs, timing, tokens",
        ),
        # policy
        (
            body(policy=5),
            "invalid_value",
            "policy",
            "kind hold, kind retract, kind chunk or a string",
        ),
        (
            body(policy={"unit": "word"}),
            "missing_field",
            "policy.kind",
            "one of hold, retract, chunk",
        ),
        (
            body(policy={"kind": "x"}),
            "invalid_value",
            "policy.kind",
            "hold, retract, chunk, not 'x'",
        ),
        (body(policy={"kind": "chunk", "unit": "x"}), "invalid_value", "policy.unit", "paragraph"),
        (
            body(policy={"kind": "retract", "unit": "word"}),
            "unknown_field",
            "policy.unit",
            "grapheme_safe, kind, max_tail",
        ),
        (body(policy={"kind": "retract", "max_tail": 0}), "invalid_value", "policy.max_tail", "1"),
        (body(policy={"kind": "chunk", "locale": "x"}), "invalid_value", "policy.locale", "35"),
    ],
)
def test_codec_tells_what_is_wrong_with_a_request(
    data: bytes, code: str, param: str | None, said: str
) -> None:
    with pytest.raises(RequestError) as refusal:
        codec.decode_request(data)
    assert (refusal.value.code, refusal.value.param) == (code, param)
    assert said in refusal.value.message
    assert len(refusal.value.message) < 700


@pytest.mark.parametrize(
    ("messages", "code", "param"),
    [
        ([], "invalid_value", "messages"),
        ([{"role": "x", "content": "a"}], "invalid_value", "messages[0].role"),
        ([{"role": "user"}], "missing_field", "messages[0].content"),
        ([{"role": "user", "content": "a"}, 5], "invalid_value", "messages[1]"),
        ([{"role": "user", "content": "a", "x": 1}], "unknown_field", "messages[0].x"),
        ("hello", "invalid_value", "messages"),
    ],
)
def test_codec_tells_what_is_wrong_with_messages(messages: object, code: str, param: str) -> None:
    with pytest.raises(RequestError) as refusal:
        codec.decode_request(json.dumps({"messages": messages}).encode())
    assert (refusal.value.code, refusal.value.param) == (code, param)


def test_codec_reads_a_request_with_its_defaults() -> None:
    request = codec.decode_request(b'{"messages":[{"role":"user","content":"hi"}],"seed":3}')
    assert request == GenerationRequest(messages=[Message("user", "hi")], seed=3)
    assert (request.max_tokens, request.offsets) == (256, OffsetUnit.CODEPOINT)


def test_codec_reads_biases_by_token_id() -> None:
    bias = codec.decode_request(body(logit_bias={"12": 1.5, "0": -100})).logit_bias
    assert bias == {"12": 1.5, "0": -100.0}


@pytest.mark.parametrize("policy", ["hold", "chunk:sentence", "tts", "no such profile"])
def test_codec_leaves_a_named_policy_to_the_gateway(policy: str) -> None:
    assert codec.decode_request(body(policy=policy)).policy == policy


def test_codec_reads_a_policy_object() -> None:
    request = codec.decode_request(body(policy={"kind": "chunk", "unit": "word"}))
    assert request.policy == Chunk(unit="word")
    assert codec.decode_request(codec.encode_json(request)) == request


@pytest.mark.parametrize("decode", ["json", "msgpack"])
@pytest.mark.parametrize(
    ("message", "code", "param"),
    [
        ({"type": "dance"}, "unknown_message", "type"),
        ({"type": 3}, "unknown_message", "type"),
        ({"ref": "a"}, "missing_field", "type"),
        ([], "invalid_value", None),
        ({"type": "start", "ref": "a"}, "missing_field", "request"),
        ({"type": "start", "ref": "a", "request": {}}, "missing_field", "request.prompt"),
        (
            {"type": "start", "ref": "a", "request": {"prompt": "a", "logit_bias": {"x": 1}}},
            "invalid_value",
            "request.logit_bias.x",
        ),
        (
            {"type": "start", "ref": "a", "request": {"prompt": 3}},
            "invalid_value",
            "request.prompt",
        ),
        ({"type": "attach", "ref": "a"}, "missing_field", "stream"),
        ({"type": "ack", "ref": "a", "at": -1}, "invalid_value", "at"),
        ({"type": "cancel", "ref": "a", "x": 1}, "unknown_field", "x"),
        ({"type": "detach", "ref": 5}, "invalid_value", "ref"),
    ],
)
def test_codec_tells_what_is_wrong_with_a_message(
    decode: str, message: object, code: str, param: str | None
) -> None:
    with pytest.raises(RequestError) as refusal:
        if decode == "json":
            codec.decode_message_json(json.dumps(message).encode())
        else:
            codec.decode_message_msgpack(msgspec.msgpack.encode(message))
    assert (refusal.value.code, refusal.value.param) == (code, param)


@pytest.mark.parametrize(
    "data",
    [b"\xc1", b"", b"\x81\xa6prompt\xa2\xff\xfe", b"\x81\xa4type\xa2\xff\xfe", b"\x91" * 100_000],
)
def test_codec_refuses_what_is_no_messagepack(data: bytes) -> None:
    with pytest.raises(RequestError) as refusal:
        codec.decode_message_msgpack(data)
    assert refusal.value.code == "malformed_json"


def test_codec_names_no_field_for_a_key_that_is_no_string() -> None:
    data = msgspec.msgpack.encode({"type": "detach", 5: "a"})
    with pytest.raises(RequestError) as refusal:
        codec.decode_message_msgpack(data)
    assert (refusal.value.code, refusal.value.param) == ("invalid_value", None)


def test_codec_refuses_repeated_names_in_messages() -> None:
    with pytest.raises(RequestError, match="ref is given twice"):
        codec.decode_message_json('{"type":"detach","ref":"a","ref":"b"}')


@pytest.mark.parametrize(
    "message",
    [
        Start("a", GenerationRequest(prompt="x", stop=["y"])),
        Attach(ref="a", stream="s1", cursor="7.0.1"),
        Detach("a"),
        Ack(ref="a", at=3),
    ],
)
def test_codec_reads_messages_it_wrote(message: Start | Attach | Detach | Ack) -> None:
    assert codec.decode_message_json(codec.encode_json(message)) == message
    assert codec.decode_message_msgpack(codec.encode_msgpack(message)) == message


def test_codec_leaves_absent_fields_out() -> None:
    assert codec.encode_json(Commit(at=0, text="a")) == b'{"type":"commit","at":0,"text":"a"}'


def test_codec_reads_null_as_absent_and_ignores_what_it_does_not_know() -> None:
    data = '{"type":"commit","at":0,"text":"a","retract":null,"x":{"y":[1]}}'
    assert codec.decode_event_json(data) == Commit(at=0, text="a")
    assert codec.decode_event_json('{"type":"hologram","at":"x"}') is None
    assert codec.decode_event_msgpack(msgspec.msgpack.encode({"type": "hologram"})) is None


@pytest.mark.parametrize(
    "data",
    [
        "",
        "{",
        "null",
        "[]",
        "{}",
        '{"type":5}',
        '{"type":"commit"}',
        '{"type":"commit","at":"0","text":"a"}',
        '{"type":"commit","at":0,"text":"\\ud800"}',
        '{"type":"commit","at":0,"text":"\ud800"}',
        '{"type":"hologram","x":' + "[" * 100_000,
        '{"type":"commit","at":"0","x":' + "[" * 100_000,
    ],
)
def test_codec_refuses_a_broken_event(data: str) -> None:
    with pytest.raises(RemoteProtocolError) as error:
        codec.decode_event_json(data)
    assert error.value.code is ErrorCode.PROTOCOL_VIOLATION


def test_codec_refuses_a_broken_event_in_messagepack() -> None:
    for data in (b"", b"\xc1", msgspec.msgpack.encode({"type": "commit"})):
        with pytest.raises(RemoteProtocolError):
            codec.decode_event_msgpack(data)
    assert codec.decode_event_msgpack(codec.encode_msgpack(Heartbeat())) == Heartbeat()
