"""The OpenAPI 3.2 document: paths by hand, schemas from the structs that decode the bodies."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from gateway.errors import HTTP_STATUS, ErrorBody
from gateway.policies.resolve import short_forms
from gateway.streams.snapshot import Snapshot
from gateway.transports.demonstration import Pace, PaceNow
from gateway.transports.openai.bodies import ChatCompletionRequest, CompletionRequest
from gateway.transports.openai.errors import OpenAIError
from gateway.transports.openai.responses.bodies import ResponseRequest
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

Json: TypeAlias = dict[str, Any]

REF_TEMPLATE = "#/components/schemas/{name}"

_ACCESS_CODES = (
    ErrorCode.UNAUTHORIZED,
    ErrorCode.FORBIDDEN,
    ErrorCode.RATE_LIMITED,
    ErrorCode.TOO_MANY_CONNECTIONS,
)
"""What whoever needs a key may be told."""
_START_CODES = (
    *_ACCESS_CODES,
    ErrorCode.MALFORMED_JSON,
    ErrorCode.INVALID_VALUE,
    ErrorCode.MISSING_FIELD,
    ErrorCode.UNKNOWN_FIELD,
    ErrorCode.CONTEXT_EXCEEDED,
    ErrorCode.UNKNOWN_MODEL,
    ErrorCode.TOO_MANY_STREAMS,
    ErrorCode.OVERLOADED,
    ErrorCode.ENGINE_UNAVAILABLE,
    ErrorCode.SHUTTING_DOWN,
)
_LOOK_CODES = (*_ACCESS_CODES, ErrorCode.UNKNOWN_STREAM, ErrorCode.STREAM_EXPIRED)
_TICKET_CODES = (
    ErrorCode.MALFORMED_JSON,
    ErrorCode.INVALID_VALUE,
    ErrorCode.UNKNOWN_FIELD,
)
_READ_CODES = (
    *_LOOK_CODES,
    ErrorCode.INVALID_VALUE,
    ErrorCode.UNKNOWN_FIELD,
    ErrorCode.BAD_CURSOR,
    ErrorCode.CURSOR_AHEAD,
    ErrorCode.UNKNOWN_EPOCH,
    ErrorCode.OVERLOADED,
    ErrorCode.SHUTTING_DOWN,
    ErrorCode.ENGINE_FAILED,
    ErrorCode.POLICY_FAILED,
)
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
        "paths": _answering_any(
            {
                **_stream_paths(),
                **_ticket_paths(),
                **_openai_paths(),
                **_demonstration_paths(demonstrated),
                **_meta_paths(),
            }
        ),
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
    described = {name: _json(f"`{code}`", "ErrorBody") for name, code in _ANY_CODES.items()}
    about = "`invalid_value`: the header `Host` or `Origin` is not one this gateway answers to"
    return {"forbidden": _json(about, "ErrorBody"), **described}


def _allow_null(body: Json) -> None:
    """OpenAI's clients send null for what they leave out."""
    for name, schema in body["properties"].items():
        if name not in body.get("required", ()):
            body["properties"][name] = {"anyOf": [schema, {"type": "null"}]}


def _any_value(_type: type) -> Json:
    """`object` in a struct."""
    return {"description": "any JSON value"}


def _stream_paths() -> Json:
    stream = {"$ref": "#/components/parameters/stream"}
    return {
        "/v1/streams": {
            "post": {
                "operationId": "startStream",
                "summary": "Start a generation",
                "description": "With `Accept: text/event-stream` the answer is the event stream "
                "itself; otherwise 201 and where to find it.",
                "requestBody": _body("GenerationRequest"),
                "responses": {
                    "200": _event_stream("The events of the new stream"),
                    "201": _json("The stream has begun", "StreamCreated"),
                    **_errors(*_START_CODES),
                },
            }
        },
        "/v1/streams/{stream}": {
            "get": {
                "operationId": "getStream",
                "summary": "The stream as it stands",
                "parameters": [stream],
                "responses": {"200": _json("A snapshot", "Snapshot"), **_errors(*_LOOK_CODES)},
            },
            "delete": {
                "operationId": "cancelStream",
                "summary": "Cancel; idempotent, what was committed stands",
                "parameters": [stream],
                "responses": {
                    "204": {"description": "The stream ends, or has ended already"},
                    **_errors(*_LOOK_CODES),
                },
            },
        },
        "/v1/streams/{stream}/events": {
            "get": {
                "operationId": "readStream",
                "summary": "Attach, at the beginning or at a cursor",
                "security": [{"key": []}, {"ticket": []}, {}],
                "parameters": [
                    stream,
                    *(
                        {"$ref": f"#/components/parameters/{name}"}
                        for name in ("policy", "offsets", "cursor", "include", "lastEventId")
                    ),
                ],
                "responses": {
                    "200": _event_stream("The events from there on"),
                    "204": {
                        "description": "The cursor says that `finish` was told: nothing follows it"
                    },
                    **_errors(*_READ_CODES),
                },
            }
        },
    }


def _ticket_paths() -> Json:
    def post(operation: str, summary: str, name: str, *codes: ErrorCode) -> Json:
        return {
            "operationId": operation,
            "summary": summary,
            "description": "For pages, which cannot give an EventSource or a WebSocket a header.",
            "requestBody": {**_body(f"{name}Request"), "required": False},
            "responses": {
                "201": _json("Leave that fits into a URL", name),
                **_errors(*codes, *_TICKET_CODES),
            },
        }

    stream = {"$ref": "#/components/parameters/stream"}
    reading = post("ticketForStream", "A ticket to read this stream", "StreamTicket", *_LOOK_CODES)
    socket = post(
        "ticketForSocket", "A ticket to open one WebSocket", "SocketTicket", *_ACCESS_CODES
    )
    return {
        "/v1/streams/{stream}/tickets": {"post": {**reading, "parameters": [stream]}},
        "/v1/tickets": {"post": socket},
    }


def _openai_paths() -> Json:
    def post(operation: str, summary: str, body: str) -> Json:
        answer = _json("The answer, or a stream of chunks", "OpenAIResponse")
        answer["content"]["text/event-stream"] = {
            "itemSchema": {"type": "object", "properties": {"data": {"type": "string"}}}
        }
        return {
            "post": {
                "operationId": operation,
                "summary": summary,
                "requestBody": _body(body),
                "responses": {
                    "200": answer,
                    **_errors(*_START_CODES, ErrorCode.ENGINE_FAILED, body="OpenAIError"),
                },
            }
        }

    return {
        "/v1/chat/completions": post(
            "chatCompletions", "OpenAI's chat completions", "ChatCompletionRequest"
        ),
        "/v1/completions": post("completions", "OpenAI's completions", "CompletionRequest"),
        "/v1/responses": post("responses", "OpenAI's responses", "ResponseRequest"),
    }


def _demonstration_paths(demonstrated: bool) -> Json:
    pace = _json("How long every check pauses", "PaceNow")
    look: Json = {
        "operationId": "pace",
        "summary": "How far verification is slowed down, for a demonstration",
        "responses": {
            "200": pace,
            "204": {"description": "This gateway does not serve a demonstration"},
            **_errors(*_ACCESS_CODES),
        },
    }
    if not demonstrated:
        return {"/v1/demonstration": {"get": look}}
    slow: Json = {
        "operationId": "slowDown",
        "summary": "Slow verification down, as a larger target model would",
        "requestBody": _body("Pace"),
        "responses": {
            "200": pace,
            **_errors(*_ACCESS_CODES, *_TICKET_CODES, ErrorCode.MISSING_FIELD),
        },
    }
    kill: Json = {
        "operationId": "killEngine",
        "summary": "Kill the engine; another one is started and the text goes on",
        "responses": {
            "204": {"description": "The engine is dead"},
            **_errors(*_ACCESS_CODES, ErrorCode.ENGINE_UNAVAILABLE),
        },
    }
    return {
        "/v1/demonstration": {"get": look, "put": slow},
        "/v1/demonstration/kill": {"post": kill},
    }


def _meta_paths() -> Json:
    def get(operation: str, summary: str, *unready: str, key: bool = False) -> Json:
        answer = {"content": {"application/json": {"schema": {"type": "object"}}}}
        statuses = ("200", *unready)
        responses = {status: {"description": summary, **answer} for status in statuses}
        operation_object: Json = {"operationId": operation, "summary": summary}
        if key:
            operation_object["responses"] = {**responses, **_errors(*_ACCESS_CODES)}
        else:
            operation_object |= {"responses": responses, "security": []}
        return {"get": operation_object}

    return {
        "/v1/models": get("models", "Models that are served", key=True),
        "/v1/models/{model}": _model_path(),
        "/v1/upstreams": get("upstreams", "How the servers are whose text is passed on", key=True),
        "/healthz": get("health", "The process answers"),
        "/readyz": get("readiness", "Whether a generation could begin now", "503"),
        "/metrics": {
            "get": {
                "operationId": "metrics",
                "summary": "The gateway in numbers, for Prometheus",
                "responses": {
                    "200": {
                        "description": "Prometheus' text format, or OpenMetrics where `Accept` "
                        "asks for it",
                        "content": {"text/plain": {"schema": {"type": "string"}}},
                    },
                    **_errors(*_ACCESS_CODES),
                },
            }
        },
        "/openapi.json": get("openapi", "This document"),
        "/asyncapi.json": get("asyncapi", "The WebSocket and the event streams, as AsyncAPI 3"),
        "/schema.json": get("jsonSchema", "Events and requests, as JSON Schema"),
    }


def _model_path() -> Json:
    answer = {"content": {"application/json": {"schema": {"type": "object"}}}}
    name = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
    return {
        "get": {
            "operationId": "model",
            "summary": "One model that is served",
            "parameters": [name],
            "responses": {
                "200": {"description": "The model", **answer},
                **_errors(
                    ErrorCode.UNKNOWN_MODEL, ErrorCode.ENGINE_UNAVAILABLE, body="OpenAIError"
                ),
            },
        }
    }


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


def _body(name: str) -> Json:
    return {
        "required": True,
        "content": {"application/json": {"schema": _reference(name)}},
    }


def _json(description: str, name: str) -> Json:
    content = {"application/json": {"schema": _reference(name)}}
    return {"description": description, "content": content}


def _reference(schema: str) -> Json:
    return {"$ref": REF_TEMPLATE.format(name=schema)}


def _event_stream(description: str) -> Json:
    event: Json = {
        "contentMediaType": "application/json",
        "contentSchema": _reference("ServerEvent"),
    }
    item = {
        "type": "object",
        "properties": {
            "data": {"type": "string", **event},
            "id": {"type": "string", "description": "The cursor after the event, where it moves"},
        },
        "required": ["data"],
    }
    return {"description": description, "content": {"text/event-stream": {"itemSchema": item}}}


def _errors(*codes: ErrorCode, body: str = "ErrorBody") -> Json:
    """Responses by status, each naming its codes."""
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(HTTP_STATUS[code], []).append(code.value)
    return {
        str(status): _json(" or ".join(f"`{name}`" for name in names), body)
        for status, names in sorted(by_status.items())
    }
