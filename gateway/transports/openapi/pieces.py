"""What the document is put together from: bodies, answers, errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from gateway.errors import HTTP_STATUS

if TYPE_CHECKING:
    from protocol.errors import ErrorCode

Json: TypeAlias = dict[str, Any]

REF_TEMPLATE = "#/components/schemas/{name}"


def request_body(name: str) -> Json:
    return {
        "required": True,
        "content": {"application/json": {"schema": reference(name)}},
    }


def json_body(description: str, name: str) -> Json:
    content = {"application/json": {"schema": reference(name)}}
    return {"description": description, "content": content}


def reference(schema: str) -> Json:
    return {"$ref": REF_TEMPLATE.format(name=schema)}


def event_stream(description: str) -> Json:
    event: Json = {
        "contentMediaType": "application/json",
        "contentSchema": reference("ServerEvent"),
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


def errors(*codes: ErrorCode, body: str = "ErrorBody") -> Json:
    """Responses by status, each naming its codes."""
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(HTTP_STATUS[code], []).append(code.value)
    return {
        str(status): json_body(" or ".join(f"`{name}`" for name in names), body)
        for status, names in sorted(by_status.items())
    }
