"""The OpenAPI 3.2 document: paths by hand, schemas from the structs that decode the bodies."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.errors import HTTP_STATUS, ErrorBody
from gateway.policies.resolve import short_forms
from gateway.streams.snapshot import Snapshot
from gateway.transports.demonstration import Pace, PaceNow
from gateway.transports.openai.bodies import ChatCompletionRequest, CompletionRequest
from gateway.transports.openai.errors import OpenAIError
from gateway.transports.openai.responses.bodies import ResponseRequest
from gateway.transports.openapi.paths import all_paths
from gateway.transports.openapi.pieces import REF_TEMPLATE, json_body
from gateway.transports.streams import StreamCreated
from gateway.transports.tickets import (
    SocketTicket,
    SocketTicketRequest,
    StreamTicket,
    StreamTicketRequest,
)
from protocol import cursor
from protocol.errors import ErrorCode
from protocol.events import OffsetUnit, ServerEvent
from protocol.requests import GenerationRequest, Include
from protocol.schema import constrain_request

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.transports.openapi.pieces import Json

_ANY_CODES = {
    "requestTimeout": ErrorCode.REQUEST_TIMEOUT,
    "bodyTooLarge": ErrorCode.BODY_TOO_LARGE,
    "headersTooLarge": ErrorCode.HEADERS_TOO_LARGE,
    "internal": ErrorCode.INTERNAL,
}
"""Of every request, whatever it asks for."""


def openapi_document(profiles: Iterable[str], *, demonstrated: bool) -> Json:
    """Every HTTP endpoint with its parameters, bodies and errors. `profiles`: those that a request
    may name; `demonstrated`: whether the engine may be slowed down and killed.
    """
    types = (
        GenerationRequest,
        StreamCreated,
        Snapshot,
        ErrorBody,
        ServerEvent,
        ChatCompletionRequest,
        CompletionRequest,
        ResponseRequest,
        OpenAIError,
        StreamTicketRequest,
        StreamTicket,
        SocketTicketRequest,
        SocketTicket,
        Pace,
        PaceNow,
        Include,
        OffsetUnit,
    )
    schemas, components = msgspec.json.schema_components(
        types, schema_hook=_any_value, ref_template=REF_TEMPLATE
    )
    by_type = dict(zip(types, schemas, strict=True))
    components["ServerEvent"] = by_type[ServerEvent]
    constrain_request(components["GenerationRequest"])
    policies = f"^({short_forms(profiles)})$"
    for form in components["GenerationRequest"]["properties"]["policy"]["anyOf"]:
        if form.get("type") == "string":
            form["pattern"] = policies
    for name in ("ChatCompletionRequest", "CompletionRequest", "ResponseRequest", "StreamOptions"):
        _allow_null(components[name])
    components["OpenAIResponse"] = {
        "type": "object",
        "description": "As OpenAI documents it; `usage` counts drafted tokens as predictions.",
    }
    return {
        "openapi": "3.2.0",
        "info": {
            "title": "Wetink",
            "version": "1",
            "description": "Streams of tentative and committed text. /v1/ws, one WebSocket for "
            "many streams, is described in /asyncapi.json; the events in /schema.json.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"key": []}, {}],
        "paths": _answering_any(all_paths(demonstrated=demonstrated)),
        "components": {
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Not needed where the gateway serves anyone.",
                },
                "ticket": {"type": "apiKey", "in": "query", "name": "ticket"},
            },
            "schemas": components,
            "parameters": _parameters(by_type),
            "responses": _any_responses(),
        },
    }


def _answering_any(paths: Json) -> Json:
    """With the answers that any request may get."""
    statuses: dict[str, int] = {"forbidden": HTTPStatus.FORBIDDEN}
    statuses |= {name: HTTP_STATUS[code] for name, code in _ANY_CODES.items()}
    for item in paths.values():
        for operation in item.values():
            for name, status in statuses.items():
                reference = {"$ref": f"#/components/responses/{name}"}
                operation["responses"].setdefault(str(int(status)), reference)
    return paths


def _any_responses() -> Json:
    described = {name: json_body(f"`{code}`", "ErrorBody") for name, code in _ANY_CODES.items()}
    about = "`invalid_value`: the header `Host` or `Origin` is not one this gateway answers to"
    return {"forbidden": json_body(about, "ErrorBody"), **described}


def _allow_null(body: Json) -> None:
    """OpenAI's clients send null for what they leave out."""
    for name, schema in body["properties"].items():
        if name not in body.get("required", ()):
            body["properties"][name] = {"anyOf": [schema, {"type": "null"}]}


def _any_value(_type: type) -> Json:
    """`object` in a struct."""
    return {"description": "any JSON value"}


def _parameters(by_type: dict[Any, Json]) -> Json:
    def query(name: str, description: str, schema: Json) -> Json:
        return {"name": name, "in": "query", "description": description, "schema": schema}

    position = {"type": "string", "pattern": f"^{cursor.PATTERN}$"}
    return {
        "stream": {"name": "stream", "in": "path", "required": True, "schema": {"type": "string"}},
        "policy": query(
            "policy",
            "A short form or name as in `GenerationRequest`, or a policy object as JSON",
            {"type": "string"},
        ),
        "offsets": query("offsets", "The unit of all offsets", by_type[OffsetUnit]),
        "cursor": query("cursor", "Where to go on; `epoch.part.offset`", position),
        "include": {
            **query(
                "include",
                "What events carry besides text, comma-separated",
                by_type[Include],
            ),
            "style": "form",
            "explode": False,
        },
        "lastEventId": {
            "name": "Last-Event-ID",
            "in": "header",
            "description": "A cursor, as a browser that reconnects sends it; wins over `cursor`. "
            "Empty is as absent",
            "schema": {"type": "string", "pattern": f"^({cursor.PATTERN})?$"},
        },
    }
