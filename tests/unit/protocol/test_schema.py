"""The documents describe what is really sent, and every reference in them leads somewhere."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import jsonschema
import pytest
from hypothesis import given

from protocol import codec
from protocol.errors import ErrorCode
from protocol.schema import asyncapi, json_schema
from tests.property.test_codec import events
from tests.property.traces import patient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from protocol.events import ServerEvent

SCHEMA = json_schema()


def validator_of(name: str) -> Any:
    return jsonschema.Draft202012Validator({**SCHEMA, "anyOf": [{"$ref": f"#/$defs/{name}"}]})


def references(document: Any) -> Iterator[str]:
    match document:
        case dict():
            for key, value in cast("dict[str, Any]", document).items():
                if key == "$ref":
                    yield value
                else:
                    yield from references(value)
        case list():
            for value in cast("list[Any]", document):
                yield from references(value)
        case _:
            pass


def resolve(document: Any, reference: str) -> Any:
    for step in reference.removeprefix("#/").split("/"):
        document = document[step]
    return document


@pytest.mark.parametrize("document", [SCHEMA, asyncapi(), asyncapi("https://ink.example/base/")])
def test_documents_hold_no_dangling_reference(document: Any) -> None:
    json.dumps(document)
    found = set(references(document))
    assert found
    for reference in found:
        assert resolve(document, reference)


def test_schema_is_valid_json_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("document", [SCHEMA, asyncapi()])
def test_documents_keep_to_the_words_of_their_standard(document: Any) -> None:
    # msgspec writes OpenAPI's discriminator; AsyncAPI's is a string, JSON Schema has none.
    assert '"discriminator"' not in json.dumps(document)


@patient
@given(event=events)
def test_schema_accepts_every_event_that_is_sent(event: ServerEvent) -> None:
    sent = json.loads(codec.encode_json(event))
    validator_of("ServerEvent").validate(sent)
    validator_of(type(event).__name__).validate(sent)


@pytest.mark.parametrize(
    ("name", "value", "valid"),
    [
        ("ServerEvent", {"type": "commit", "at": 0, "text": "a", "x": 1}, True),
        ("ServerEvent", {"type": "commit", "text": "a"}, False),
        ("ServerEvent", {"type": "commit", "at": 0, "text": "a", "retract": {"at": 0}}, False),
        ("GenerationRequest", {"prompt": "a"}, True),
        ("GenerationRequest", {"prompt": "a", "policy": {"kind": "chunk", "unit": "word"}}, True),
        ("GenerationRequest", {"prompt": "a", "policy": "tts"}, True),
        ("GenerationRequest", {"prompt": "a", "x": 1}, False),
        ("GenerationRequest", {"prompt": "a", "max_tokens": 0}, False),
        ("GenerationRequest", {"prompt": "a", "policy": {"kind": "chunk", "unit": "x"}}, False),
        ("GenerationRequest", {}, False),
        (
            "GenerationRequest",
            {"prompt": "a", "messages": [{"role": "user", "content": ""}]},
            False,
        ),
        ("GenerationRequest", {"messages": [{"role": "user", "content": ""}]}, True),
        (
            "GenerationRequest",
            {"prompt": None, "messages": [{"role": "user", "content": ""}]},
            True,
        ),
        ("GenerationRequest", {"prompt": None, "messages": None}, False),
        ("GenerationRequest", {"prompt": "a", "logit_bias": {"5": 1, "x": 1}}, False),
        ("GenerationRequest", {"prompt": "a", "include": ["tokens"] * 5}, False),
        ("ClientMessage", {"type": "detach", "ref": "a"}, True),
        ("ClientMessage", {"type": "dance", "ref": "a"}, False),
        ("ErrorBody", {"error": {"code": "internal", "message": "", "param": None}}, True),
        ("ErrorBody", {"error": {"code": "internal"}}, False),
    ],
)
def test_schema_tells_right_from_wrong(name: str, value: object, valid: bool) -> None:
    assert validator_of(name).is_valid(value) is valid


def test_schema_names_every_error_code() -> None:
    code = SCHEMA["$defs"]["ErrorBody"]["properties"]["error"]["properties"]["code"]
    assert code["examples"] == [each.value for each in ErrorCode]


def test_asyncapi_describes_both_transports_and_every_message() -> None:
    document = asyncapi()
    assert document["asyncapi"] == "3.0.0"
    assert "servers" not in document
    socket = set(document["channels"]["socket"]["messages"])
    stream = set(document["channels"]["events"]["messages"])
    assert stream == {
        *("open", "tentative", "commit", "retract", "part", "finish", "error", "heartbeat")
    }
    assert socket - stream == {"start", "attach", "detach", "cancel", "ack"}
    assert document["components"]["messages"]["commit"]["payload"] == {
        "$ref": "#/components/schemas/Commit"
    }
    operations = document["operations"]
    assert operations["receiveMessages"]["action"] == "receive"
    assert len(operations["receiveMessages"]["messages"]) == 5


@pytest.mark.parametrize(
    ("url", "servers"),
    [
        (
            "http://127.0.0.1:8000",
            {
                "http": {"host": "127.0.0.1:8000", "protocol": "http"},
                "ws": {"host": "127.0.0.1:8000", "protocol": "ws"},
            },
        ),
        (
            "https://ink.example/base/",
            {
                "http": {"host": "ink.example", "pathname": "/base", "protocol": "https"},
                "ws": {"host": "ink.example", "pathname": "/base", "protocol": "wss"},
            },
        ),
    ],
)
def test_asyncapi_names_the_gateway_it_was_asked_from(url: str, servers: object) -> None:
    document = asyncapi(url)
    assert document["servers"] == servers
    assert document["channels"]["socket"]["servers"] == [{"$ref": "#/servers/ws"}]
    assert document["channels"]["events"]["servers"] == [{"$ref": "#/servers/http"}]
