"""What upstreams answer with, byte by byte."""

from __future__ import annotations

import json
from typing import Any


def event(body: object) -> bytes:
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


def chunk(
    delta: dict[str, Any] | None = None,
    reason: str | None = None,
    **choice: Any,
) -> bytes:
    """Of a chat."""
    body = {"index": 0, "delta": delta or {}, "finish_reason": reason, **choice}
    return event({"id": "c", "object": "chat.completion.chunk", "choices": [body]})


def text(content: str, reason: str | None = None, **choice: Any) -> bytes:
    """Of a raw completion."""
    body = {"index": 0, "text": content, "finish_reason": reason, **choice}
    return event({"id": "c", "object": "text_completion", "choices": [body]})


def call(index: int, name: str | None = None, arguments: str | None = None) -> bytes:
    function = {"name": name, "arguments": arguments}
    given = {key: value for key, value in function.items() if value is not None}
    return chunk({"tool_calls": [{"index": index, "function": given}]})


def usage(prompt: int, completion: int, **details: Any) -> bytes:
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, **details}
    return event({"choices": [], "usage": counts})


DONE = b"data: [DONE]\n\n"
