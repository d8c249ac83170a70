"""An attachment's events as OpenAI's: a response that grows item by item."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from gateway.transports.openai.errors import as_request_error, cut_short, error_shape
from gateway.transports.openai.shapes import COMPLETE_REASONS
from protocol.events import Commit, Error, Finish, FinishReason, Open, Part, PartKind

if TYPE_CHECKING:
    from protocol.events import ServerEvent, Usage

Json: TypeAlias = dict[str, Any]


class ResponseEvents:
    """Follows one stream under `hold` from its `open` to its end; `response` is what there is."""

    def __init__(self, response: Json, stream: str) -> None:
        """`response`: as it is before anything was said. `stream`: what items are named after."""
        self.response = response
        self._stream = stream
        self._sequence = 0
        self._kind = ""
        self._name = ""
        self._text = ""
        self._is_open = False
        """Whether an item has been added and not done."""

    def feed(self, event: ServerEvent) -> list[Json]:
        match event:
            case Open(kind=kind):
                self._kind = kind
                started = {"response": self._copy()}
                return [
                    self._event("response.created", **started),
                    self._event("response.in_progress", **started),
                ]
            case Part(kind=kind, name=name):
                done = self._done("completed")
                self._kind, self._name = kind, name or ""
                return done + (self._begin() if kind == PartKind.TOOL_CALL else [])
            case Commit(text=text):
                begun = [] if self._is_open else self._begin()
                self._text += text
                return [*begun, self._delta(text)]
            case Finish(reason=reason) if reason not in COMPLETE_REASONS:
                return self._failed(cut_short(reason))
            case Finish(reason=reason, usage=usage):
                return self._finished(reason, usage)
            case Error():
                return self._failed(as_request_error(event))
            case _:
                return []

    def _finished(self, reason: str, usage: Usage) -> list[Json]:
        is_cut = reason == FinishReason.LENGTH
        # Calls that are whole end with `tool_calls`, so this one is not.
        is_broken_call = (
            self._is_open and self._kind == PartKind.TOOL_CALL and reason != FinishReason.TOOL_CALLS
        )
        status = "incomplete" if is_cut or is_broken_call else "completed"
        events = self._done(status)
        self.response["status"] = status
        if is_cut:
            self.response["incomplete_details"] = {"reason": "max_output_tokens"}
        self.response["usage"] = usage_of(usage)
        return [*events, self._event(f"response.{status}", response=self._copy())]

    def _failed(self, error: Any) -> list[Json]:
        shape = error_shape(error).error
        self.response["status"] = "failed"
        self.response["error"] = {"code": "server_error", "message": shape.message}
        return [self._event("response.failed", response=self._copy())]

    @property
    def _index(self) -> int:
        return len(self.response["output"])

    @property
    def _place(self) -> Json:
        return {"item_id": self._item("")["id"], "output_index": self._index}

    @property
    def _content(self) -> Json:
        return {**self._place, "content_index": 0}

    def _item(self, status: str) -> Json:
        """The present part as an item."""
        number = self._index
        match self._kind:
            case PartKind.TOOL_CALL:
                return call_item(self._stream, number, self._name, self._text, status)
            case PartKind.REASONING:
                content = [{"type": "reasoning_text", "text": self._text}] if self._text else []
                return {
                    "id": f"rs_{self._stream}_{number}",
                    "type": "reasoning",
                    "summary": [],
                    "content": content,
                    "status": status,
                }
            case _:
                return {
                    "id": f"msg_{self._stream}_{number}",
                    "type": "message",
                    "role": "assistant",
                    "status": status,
                    "content": [_output_text(self._text)] if self._text else [],
                }

    def _begin(self) -> list[Json]:
        self._is_open = True
        added = self._event(
            "response.output_item.added",
            output_index=self._index,
            item=self._item("in_progress"),
        )
        if self._kind != PartKind.TEXT:
            return [added]
        part = _output_text("")
        return [added, self._event("response.content_part.added", **self._content, part=part)]

    def _delta(self, text: str) -> Json:
        match self._kind:
            case PartKind.TOOL_CALL:
                kind = "response.function_call_arguments.delta"
                return self._event(kind, **self._place, delta=text)
            case PartKind.REASONING:
                return self._event("response.reasoning_text.delta", **self._content, delta=text)
            case _:
                kind = "response.output_text.delta"
                return self._event(kind, **self._content, delta=text, logprobs=[])

    def _done(self, status: str) -> list[Json]:
        if not self._is_open:
            return []
        text, content = self._text, self._content
        item = self._item(status)
        match self._kind:
            case PartKind.TOOL_CALL:
                kind = "response.function_call_arguments.done"
                ending = [self._event(kind, **self._place, name=self._name, arguments=text)]
            case PartKind.REASONING:
                ending = [self._event("response.reasoning_text.done", **content, text=text)]
            case _:
                part = _output_text(text)
                ending = [
                    self._event("response.output_text.done", **content, text=text, logprobs=[]),
                    self._event("response.content_part.done", **content, part=part),
                ]
        index = self._index
        ending.append(self._event("response.output_item.done", output_index=index, item=item))
        self.response["output"].append(item)
        self._text, self._is_open = "", False
        return ending

    def _copy(self) -> Json:
        return {**self.response, "output": [*self.response["output"]]}

    def _event(self, kind: str, **fields: Any) -> Json:
        event = {"type": kind, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return event


class ResponseFraming:
    """Of one response's events, for an event stream."""

    def __init__(self, events: ResponseEvents) -> None:
        self._events = events

    def preamble(self) -> bytes:
        return b""

    def encode(self, event: ServerEvent) -> bytes:
        told = self._events.feed(event)
        return b"".join(
            b"event: %s\ndata: %s\n\n" % (each["type"].encode(), msgspec.json.encode(each))
            for each in told
        ) or (b":\n\n")


def call_item(stream: str, number: int, name: str, arguments: str, status: str) -> Json:
    return {
        "id": f"fc_{stream}_{number}",
        "type": "function_call",
        "call_id": call_id(stream, number),
        "name": name,
        "arguments": arguments,
        "status": status,
    }


def call_id(stream: str, number: int) -> str:
    """Of the call that is item `number` of its response."""
    return f"call_{stream}_{number}"


def usage_of(usage: Usage) -> Json:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_prompt_tokens},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _output_text(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
