"""Machine-readable descriptions of the wire, made from the structs (SPEC section 7.4): JSON Schema
2020-12 and AsyncAPI 3.
"""

from __future__ import annotations

from typing import Any, TypeAlias, cast, get_args
from urllib.parse import urlsplit

import msgspec

from protocol.errors import ErrorCode
from protocol.events import PROTOCOL_VERSION, ServerEvent
from protocol.requests import ClientMessage, GenerationRequest

Document: TypeAlias = dict[str, Any]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_ROOTS: dict[str, Any] = {"ServerEvent": ServerEvent, "ClientMessage": ClientMessage}
_ERROR_BODY: Document = {
    "title": "ErrorBody",
    "description": "Body of every HTTP answer that is not a success.",
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "code": {"type": "string", "examples": [code.value for code in ErrorCode]},
                "message": {"type": "string"},
                "param": {"type": ["string", "null"]},
            },
            "required": ["code", "message", "param"],
        }
    },
    "required": ["error"],
}


_TICKET: Document = {
    "type": "object",
    "properties": {
        "ticket": {"type": "string", "description": "In place of an Authorization header."}
    },
}


def json_schema() -> Document:
    """Schemas of all events, client messages and requests, under `$defs`."""
    return {
        "$schema": _DIALECT,
        "$id": f"urn:wetink:protocol:{PROTOCOL_VERSION}",
        "title": "Wetink protocol",
        "description": "Readers ignore fields and event types that are not described here.",
        "anyOf": [
            {"$ref": f"#/$defs/{name}"} for name in (*_ROOTS, "GenerationRequest", "ErrorBody")
        ],
        "$defs": _schemas("#/$defs/"),
    }


def asyncapi(server_url: str | None = None) -> Document:
    """An AsyncAPI 3 document of both transports, of the gateway at `server_url` if one is given."""
    events = _messages(ServerEvent)
    requests = _messages(ClientMessage)
    document: Document = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Wetink",
            "version": str(PROTOCOL_VERSION),
            "description": "Streams of tentative and committed text. Readers ignore fields and"
            " event types that are not described here.",
        },
        "defaultContentType": "application/json",
        "channels": {
            "events": _channel(
                "/v1/streams/{stream}/events",
                events,
                "Server-sent events of one stream; also the answer to POST /v1/streams.",
                parameters={"stream": {"description": "The stream's id."}},
                bindings={"http": {"query": _TICKET, "bindingVersion": "0.3.0"}},
            ),
            "socket": _channel(
                "/v1/ws",
                {**events, **requests},
                "Many streams on one WebSocket; subprotocols wetink.v1.json, wetink.v1.msgpack.",
                bindings={"ws": {"method": "GET", "query": _TICKET, "bindingVersion": "0.1.0"}},
            ),
        },
        "operations": {
            "sendEvents": _operation("send", "events", events),
            "sendSocketEvents": _operation("send", "socket", events),
            "receiveMessages": _operation("receive", "socket", requests),
        },
        "components": {
            "messages": {**events, **requests},
            "schemas": _schemas("#/components/schemas/"),
        },
    }
    if server_url is not None:
        _add_servers(document, server_url)
    return document


def _schemas(prefix: str) -> Document:
    """Every struct's schema by name, references starting with `prefix`."""
    types = [*_ROOTS.values(), GenerationRequest]
    roots, components = msgspec.json.schema_components(
        types, schema_hook=_any_value, ref_template=prefix + "{name}"
    )
    constrain_request(components["GenerationRequest"])
    named = {**components, **dict(zip(_ROOTS, roots, strict=False))}
    return {**_plain(named), "ErrorBody": _ERROR_BODY}


def constrain_request(schema: Document) -> None:
    """Adds to the schema of `GenerationRequest` what its struct cannot say (SPEC section 8.1)."""
    schema["oneOf"] = [
        # Null is as absent.
        {"required": ["prompt"], "properties": {"prompt": {"type": "string"}}},
        {"required": ["messages"], "properties": {"messages": {"type": "array"}}},
    ]
    schema["properties"]["logit_bias"]["propertyNames"] = {"pattern": "^[0-9]+$"}


def _plain(schema: Any) -> Any:
    """Without `discriminator`, which is OpenAPI's own, and docstrings on one line."""
    match schema:
        case dict():
            items = cast("Document", schema).items()
            return {key: _plain(value) for key, value in items if key != "discriminator"}
        case list():
            return [_plain(each) for each in cast("list[Any]", schema)]
        case str():
            return " ".join(schema.split())
        case _:
            return schema


def _any_value(_type: type) -> Document:
    """The schema of `object`, the one type msgspec cannot describe here (nor by an empty one)."""
    return {"description": "Any value."}


def _messages(union: Any) -> Document:
    """One AsyncAPI message per struct of a union, by the struct's tag."""
    messages: Document = {}
    for struct in get_args(union):
        tag = str(struct.__struct_config__.tag)
        messages[tag] = {
            "name": tag,
            "title": struct.__name__,
            "payload": {"$ref": f"#/components/schemas/{struct.__name__}"},
        }
    return messages


def _channel(address: str, messages: Document, description: str, **more: Document) -> Document:
    references = {tag: {"$ref": f"#/components/messages/{tag}"} for tag in messages}
    return {"address": address, "description": description, "messages": references, **more}


def _operation(action: str, channel: str, messages: Document) -> Document:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{tag}"} for tag in messages],
    }


def _add_servers(document: Document, url: str) -> None:
    parts = urlsplit(url)
    secure = "s" if parts.scheme == "https" else ""
    place: Document = {"host": parts.netloc}
    if parts.path.strip("/"):
        place["pathname"] = parts.path.rstrip("/")
    document["servers"] = {
        "http": {**place, "protocol": f"http{secure}"},
        "ws": {**place, "protocol": f"ws{secure}"},
    }
    document["channels"]["events"]["servers"] = [{"$ref": "#/servers/http"}]
    document["channels"]["socket"]["servers"] = [{"$ref": "#/servers/ws"}]
