"""The endpoints, written by hand: parameters, bodies, answers, and which errors each may have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.transports.openapi.pieces import errors, event_stream, json_body, request_body
from protocol.errors import ErrorCode

if TYPE_CHECKING:
    from gateway.transports.openapi.pieces import Json

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


def all_paths(*, demonstrated: bool) -> Json:
    """`demonstrated`: whether the engine may be slowed down and killed."""
    return {
        **_stream_paths(),
        **_ticket_paths(),
        **_openai_paths(),
        **_demonstration_paths(demonstrated),
        **_meta_paths(),
    }


def _stream_paths() -> Json:
    stream = {"$ref": "#/components/parameters/stream"}
    return {
        "/v1/streams": {
            "post": {
                "operationId": "startStream",
                "summary": "Start a generation",
                "description": "With `Accept: text/event-stream` the answer is the event stream "
                "itself; otherwise 201 and where to find it.",
                "requestBody": request_body("GenerationRequest"),
                "responses": {
                    "200": event_stream("The events of the new stream"),
                    "201": json_body("The stream has begun", "StreamCreated"),
                    **errors(*_START_CODES),
                },
            }
        },
        "/v1/streams/{stream}": {
            "get": {
                "operationId": "getStream",
                "summary": "The stream as it stands",
                "parameters": [stream],
                "responses": {"200": json_body("A snapshot", "Snapshot"), **errors(*_LOOK_CODES)},
            },
            "delete": {
                "operationId": "cancelStream",
                "summary": "Cancel; idempotent, what was committed stands",
                "parameters": [stream],
                "responses": {
                    "204": {"description": "The stream ends, or has ended already"},
                    **errors(*_LOOK_CODES),
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
                    "200": event_stream("The events from there on"),
                    "204": {
                        "description": "The cursor says that `finish` was told: nothing follows it"
                    },
                    **errors(*_READ_CODES),
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
            "requestBody": {**request_body(f"{name}Request"), "required": False},
            "responses": {
                "201": json_body("Leave that fits into a URL", name),
                **errors(*codes, *_TICKET_CODES),
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
        answer = json_body("The answer, or a stream of chunks", "OpenAIResponse")
        answer["content"]["text/event-stream"] = {
            "itemSchema": {"type": "object", "properties": {"data": {"type": "string"}}}
        }
        return {
            "post": {
                "operationId": operation,
                "summary": summary,
                "requestBody": request_body(body),
                "responses": {
                    "200": answer,
                    **errors(*_START_CODES, ErrorCode.ENGINE_FAILED, body="OpenAIError"),
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
    pace = json_body("How long every check pauses", "PaceNow")
    look: Json = {
        "operationId": "pace",
        "summary": "How far verification is slowed down, for a demonstration",
        "responses": {
            "200": pace,
            "204": {"description": "This gateway does not serve a demonstration"},
            **errors(*_ACCESS_CODES),
        },
    }
    if not demonstrated:
        return {"/v1/demonstration": {"get": look}}
    slow: Json = {
        "operationId": "slowDown",
        "summary": "Slow verification down, as a larger target model would",
        "requestBody": request_body("Pace"),
        "responses": {
            "200": pace,
            **errors(*_ACCESS_CODES, *_TICKET_CODES, ErrorCode.MISSING_FIELD),
        },
    }
    kill: Json = {
        "operationId": "killEngine",
        "summary": "Kill the engine; another one is started and the text goes on",
        "responses": {
            "204": {"description": "The engine is dead"},
            **errors(*_ACCESS_CODES, ErrorCode.ENGINE_UNAVAILABLE),
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
            operation_object["responses"] = {**responses, **errors(*_ACCESS_CODES)}
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
                    **errors(*_ACCESS_CODES),
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
                **errors(ErrorCode.UNKNOWN_MODEL, ErrorCode.ENGINE_UNAVAILABLE, body="OpenAIError"),
            },
        }
    }
