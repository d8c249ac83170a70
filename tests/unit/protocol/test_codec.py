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
        (b"", "malformed_json", None, "empty"),
        (b"{", "malformed_json", None, "ends too early"),
        (b'{"prompt":"a"} x', "malformed_json", None, "trailing"),
        (b'{"prompt":"\xff"}', "malformed_json", None, "UTF-8"),
        (b'{"prompt":"\\ud800"}', "malformed_json", None, "surrogate"),
        (b'{"prompt":"\\udc00x"}', "malformed_json", None, "surrogate"),
        (b'{"prompt":"a","temperature":NaN}', "malformed_json", None, ""),
        (b'{"prompt":"a","temperature":Infinity}', "malformed_json", None, ""),
        (b'{"prompt":1', "malformed_json", None, ""),
        (b"[" * 100_000, "malformed_json", None, "nested too deeply"),
        (b'{"x":' + b"[" * 100_000, "malformed_json", None, "nested too deeply"),
        (b'{"policy":{"kind":' + b'{"a":' * 100_000, "malformed_json", None, "nested too deeply"),
        # not an object
        (b"[]", "invalid_value", None, "the body must be an object"),
        (b'"hello"', "invalid_value", None, 'not "hello"'),
        (b"null", "invalid_value", None, "object"),
        # fields
        (b"{}", "missing_field", "prompt", "either prompt or messages"),
        (body(messages=[{"role": "user", "content": "x"}]), "invalid_value", "messages", "both"),
        (body(temprature=1), "unknown_field", "temprature", "temperature, tool_choice"),
        (b'{"prompt":"a","prompt":"b"}', "invalid_value", "prompt", "twice"),
        (b'{"prompt":"a","draft":{"length":1,"length":2}}', "invalid_value", "length", "twice"),
        (body(**{"x" * 500: 1}), "unknown_field", "x" * 80 + "…", "allowed here"),
        (b'{"x` - at `$.nope":1}', "unknown_field", "nope.x", ""),
        # values
        (b'{"prompt":1}', "invalid_value", "prompt", "a string, not 1"),
        (body(max_tokens=0), "invalid_value", "max_tokens", "an integer of at least 1, not 0"),
        (body(max_tokens=-5), "invalid_value", "max_tokens", "not -5"),
        (body(max_tokens="3"), "invalid_value", "max_tokens", 'an integer of at least 1, not "3"'),
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
            'at least 1 and at most 512 characters, not ""',
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
            'hold, retract, chunk, not "x"',
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
    with pytest.raises(RequestError, match='"ref" is given twice'):
        codec.decode_message_json('{"type":"detach","ref":"a","ref":"b"}')


@pytest.mark.parametrize("header", [b"\xa4", b"\xd9\x04", b"\xda\x00\x04", b"\xdb\x00\x00\x00\x04"])
def test_codec_refuses_repeated_names_in_messagepack(header: bytes) -> None:
    pack = msgspec.msgpack.encode
    request = b"\x83" + pack("prompt") + pack("x") + pack("seed") + pack(1)
    request += header + b"seed" + pack(2)
    message = b"\x83" + pack("type") + pack("start") + pack("ref") + pack("a")
    with pytest.raises(RequestError) as refusal:
        codec.decode_message_msgpack(message + pack("request") + request)
    assert (refusal.value.code, refusal.value.param) == ("invalid_value", "seed")


def test_codec_looks_for_repeated_names_behind_values_of_every_size() -> None:
    request = {
        "prompt": "x" * 70_000,
        "stop": ["y" * 300, "z" * 40, "a"],
        "stop_token_ids": [0, 200, 70_000, 2**31, 2**33, *range(20)],
        "logit_bias": {str(token): -0.5 for token in range(20)},
        "temperature": 0.5,
        "ignore_eos": True,
        "seed": None,
        "priority": -50,
    }
    message = {"type": "start", "ref": "a", "request": request}
    whole = msgspec.msgpack.encode(message)
    decoded = codec.decode_message_msgpack(whole)
    assert isinstance(decoded, Start)
    assert decoded.request.logit_bias["19"] == -0.5
    # One more pair behind all of that: the outer map has 4 pairs now.
    with pytest.raises(RequestError, match='"ref" is given twice'):
        codec.decode_message_msgpack(
            b"\x84" + whole[1:] + msgspec.msgpack.encode("ref") + msgspec.msgpack.encode("b")
        )


def test_codec_takes_a_number_for_an_integer_where_its_fraction_is_zero() -> None:
    request = codec.decode_request(
        b'{"prompt":"x","max_tokens":3.0,"seed":9.0,"stop_token_ids":[5,7e0]}'
    )
    assert (request.max_tokens, request.seed, request.stop_token_ids) == (3, 9, [5, 7])
    assert all(type(token) is int for token in request.stop_token_ids)
    packed = msgspec.msgpack.encode({"type": "ack", "ref": "a", "at": 4.0})
    assert codec.decode_message_msgpack(packed) == Ack(ref="a", at=4)


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        (b'"max_tokens":3.5', "max_tokens", "not 3.5"),
        (b'"max_tokens":0.0', "max_tokens", "not 0"),
        (b'"max_tokens":3.0,"stop_token_ids":[1.5]', "stop_token_ids[0]", "not 1.5"),
        (b'"seed":1e300', "seed", "not 1"),
        (b'"max_tokens":3.0,"max_tokens":4.0', "max_tokens", "given twice"),
        (b'"max_tokens":3.0,"x":%b' % (b"[" * 900 + b"]" * 900), "max_tokens", "not 3.0"),
    ],
)
def test_codec_names_what_is_no_integer(fields: bytes, param: str | None, said: str) -> None:
    with pytest.raises(RequestError, match=said) as refusal:
        codec.decode_request(b'{"prompt":"x",%b}' % fields)
    assert refusal.value.param == param


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the body is empty; it must be JSON"),
        (b" \n", "the body is empty; it must be JSON"),
        (b'{"prompt":"a', "the body is not complete JSON: it ends too early"),
        (b'{"prompt":"\\ud83d"}', "the body has half of a surrogate pair"),
        (b'{"prompt":"\\ud83d\\n"}', "the body has half of a surrogate pair"),
        (b'{"prompt":"\\ude00"}', "the body has half of a surrogate pair"),
        (b'{"prompt":"\xff"}', "the body is not valid UTF-8"),
        (b"[" * 100_000, "the body is nested too deeply"),
        (b'{"prompt":null,"messages":1}', "messages must be a list of at least 1 items, not 1"),
        (b'{"prompt":"a","max_tokens":null}', "not null"),
        (b'{"prompt":"a","max_tokens":true}', "not true"),
        (b'{"prompt":["a"]}', "prompt must be a string, not a list"),
        (b'{"messages":[]}', "a list of at least 1 items, not an empty list"),
        (b'{"prompt":{"a":1}}', "prompt must be a string, not an object"),
    ],
)
def test_codec_speaks_of_json_not_of_python(body: bytes, said: str) -> None:
    with pytest.raises(RequestError) as refusal:
        codec.decode_request(body)
    assert said in refusal.value.message


def test_codec_speaks_of_messages_in_a_message() -> None:
    for data in (b"", b"\x81"):
        with pytest.raises(RequestError, match="the message is .*MessagePack"):
            codec.decode_message_msgpack(data)
    with pytest.raises(RequestError, match="the message must be an object with"):
        codec.decode_message_json("[]")
    packed = msgspec.msgpack.encode({"type": "detach", "ref": b"x"})
    with pytest.raises(RequestError, match="ref must be a string of at most 128 characters"):
        codec.decode_message_msgpack(packed)


def test_codec_bounds_what_a_client_makes_the_server_keep_and_repeat() -> None:
    assert codec.decode_message_json(json.dumps({"type": "detach", "ref": "r" * 128}))
    with pytest.raises(RequestError, match="at most 128 characters"):
        codec.decode_message_json(json.dumps({"type": "detach", "ref": "r" * 129}))
    with pytest.raises(RequestError) as refusal:
        codec.decode_request(body(include=["tokens"] * 5))
    assert refusal.value.param == "include"
    for huge in (
        body(**{"x" * 10_000: 1}),
        body(logit_bias={"x" * 10_000: 1}),
        b'{"%b":1,"%b":2,"prompt":"a"}' % (b"x" * 10_000, b"x" * 10_000),
        body(model=["x"], stop=["x" * 10_000]),
    ):
        with pytest.raises(RequestError) as refusal:
            codec.decode_request(huge)
        assert len(refusal.value.message) < 1000
        assert len(refusal.value.param or "") < 200


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
