"""The OpenAPI 3.1 document: paths by hand, schemas from the structs that decode the bodies."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from gateway.errors import HTTP_STATUS, ErrorBody
from gateway.streams.snapshot import Snapshot
from gateway.transports.openai.requests import ChatCompletionRequest, CompletionRequest
from gateway.transports.streams import StreamCreated
from protocol.errors import ErrorCode
from protocol.events import IncludeItem, OffsetUnit, ServerEvent
from protocol.requests import ChunkUnit, GenerationRequest

Json: TypeAlias = dict[str, Any]

REF_TEMPLATE = "#/components/schemas/{name}"

_START_CODES = (
    ErrorCode.MALFORMED_JSON,
    ErrorCode.INVALID_VALUE,
    ErrorCode.MISSING_FIELD,
    ErrorCode.UNKNOWN_FIELD,
    ErrorCode.CONTEXT_EXCEEDED,
    ErrorCode.BODY_TOO_LARGE,
    ErrorCode.UNKNOWN_MODEL,
    ErrorCode.TOO_MANY_STREAMS,
    ErrorCode.OVERLOADED,
    ErrorCode.ENGINE_UNAVAILABLE,
    ErrorCode.SHUTTING_DOWN,
)
_LOOK_CODES = (ErrorCode.UNKNOWN_STREAM, ErrorCode.STREAM_EXPIRED)
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


def openapi_document() -> Json:
    """Every HTTP endpoint with its parameters, bodies and errors."""
    types = (
        GenerationRequest,
        StreamCreated,
        Snapshot,
        ErrorBody,
        ServerEvent,
        ChatCompletionRequest,
        CompletionRequest,
        IncludeItem,
        OffsetUnit,
        ChunkUnit,
    )
    schemas, components = msgspec.json.schema_components(
        types, schema_hook=_any_value, ref_template=REF_TEMPLATE
    )
    by_type = dict(zip(types, schemas, strict=True))
    components["ServerEvent"] = by_type[ServerEvent]
    components["OpenAIResponse"] = {
        "type": "object",
        "description": "As OpenAI documents it; `usage` counts drafted tokens as predictions.",
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Wetink",
            "version": "1",
            "description": "Streams of tentative and committed text. /v1/ws, one WebSocket for "
            "many streams, is described in /asyncapi.json; the events in /schema.json.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {**_stream_paths(), **_openai_paths(), **_meta_paths()},
        "components": {
            "schemas": components,
            "parameters": _parameters(by_type),
        },
    }


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


def _openai_paths() -> Json:
    def post(operation: str, summary: str, body: str) -> Json:
        answer = _json("The answer, or a stream of chunks", "OpenAIResponse")
        answer["content"]["text/event-stream"] = {"schema": {"type": "string"}}
        return {
            "post": {
                "operationId": operation,
                "summary": summary,
                "requestBody": _body(body),
                "responses": {
                    "200": answer,
                    **_errors(*_START_CODES, ErrorCode.ENGINE_FAILED),
                },
            }
        }

    return {
        "/v1/chat/completions": post(
            "chatCompletions", "OpenAI's chat completions", "ChatCompletionRequest"
        ),
        "/v1/completions": post("completions", "OpenAI's completions", "CompletionRequest"),
    }


def _meta_paths() -> Json:
    def get(operation: str, summary: str, *unready: str) -> Json:
        answer = {"content": {"application/json": {"schema": {"type": "object"}}}}
        statuses = ("200", *unready)
        return {
            "get": {
                "operationId": operation,
                "summary": summary,
                "responses": {status: {"description": summary, **answer} for status in statuses},
            }
        }

    return {
        "/v1/models": get("models", "Models that are served"),
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
                    }
                },
            }
        },
        "/openapi.json": get("openapi", "This document"),
        "/asyncapi.json": get("asyncapi", "The WebSocket and the event streams, as AsyncAPI 3"),
        "/schema.json": get("jsonSchema", "Events and requests, as JSON Schema"),
    }


def _parameters(by_type: dict[Any, Json]) -> Json:
    def query(name: str, description: str, schema: Json) -> Json:
        return {"name": name, "in": "query", "description": description, "schema": schema}

    cursor = {"type": "string", "pattern": r"^\d+\.\d+\.\d+(\.(finish|error))?$"}
    return {
        "stream": {"name": "stream", "in": "path", "required": True, "schema": {"type": "string"}},
        "policy": query(
            "policy",
            "`hold`, `retract`, `retract:<max tail>`, `chunk`, `chunk:<unit>`, a profile's name, "
            f"or a policy object as JSON. Units: {', '.join(by_type[ChunkUnit]['enum'])}.",
            {"type": "string"},
        ),
        "offsets": query("offsets", "The unit of all offsets", by_type[OffsetUnit]),
        "cursor": query("cursor", "Where to go on; `epoch.part.offset`", cursor),
        "include": {
            **query(
                "include",
                "What events carry besides text, comma-separated",
                {"type": "array", "items": by_type[IncludeItem]},
            ),
            "style": "form",
            "explode": False,
        },
        "lastEventId": {
            "name": "Last-Event-ID",
            "in": "header",
            "description": "A cursor, as a browser that reconnects sends it; wins over `cursor`",
            "schema": cursor,
        },
    }


def _body(name: str) -> Json:
    return {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": REF_TEMPLATE.format(name=name)}}},
    }


def _json(description: str, name: str) -> Json:
    schema = {"$ref": REF_TEMPLATE.format(name=name)}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _event_stream(description: str) -> Json:
    return {
        "description": f"{description}; each `data` is one ServerEvent, `id` is the cursor",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }


def _errors(*codes: ErrorCode) -> Json:
    """Responses by status, each naming its codes."""
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(HTTP_STATUS[code], []).append(code.value)
    return {
        str(status): _json(" or ".join(f"`{name}`" for name in names), "ErrorBody")
        for status, names in sorted(by_status.items())
    }
