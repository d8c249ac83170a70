"""The shapes OpenAI's clients know: chunks, whole answers, errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import msgspec

from gateway.errors import HTTP_STATUS, BackendError
from protocol.errors import ErrorCode, RequestError
from protocol.events import Commit, Error, Finish, FinishReason, Heartbeat, Open, Part, PartKind

if TYPE_CHECKING:
    from protocol.events import ServerEvent, Usage

Json: TypeAlias = dict[str, Any]

COMPLETE_REASONS = frozenset({FinishReason.STOP, FinishReason.LENGTH, FinishReason.TOOL_CALLS})
"""Any other reason means that the text was cut short by somebody."""
DONE = b"data: [DONE]\n\n"


class Shape(Protocol):
    """Where text goes in a chunk and in a whole answer: chat or plain completion."""

    chunk_object: str
    object: str
    id_prefix: str

    def first(self) -> Json | None:
        """Choice of a chunk in front of all text, if the shape has one."""
        ...

    def delta(self, text: str, part: Part | Open) -> Json | None:
        """Choice of a chunk with `text` of `part`; None where the shape has no place for it."""
        ...

    def last(self, reason: str) -> Json: ...

    def whole(self, texts: list[tuple[str, str]], reason: str) -> Json:
        """Choice of a whole answer; `texts` are (kind, text) of all parts."""
        ...


class ChatShape:
    chunk_object = "chat.completion.chunk"
    object = "chat.completion"
    id_prefix = "chatcmpl-"

    def first(self) -> Json | None:
        return _choice(delta={"role": "assistant", "content": ""}, finish_reason=None)

    def delta(self, text: str, part: Part | Open) -> Json | None:
        match part.kind:
            case PartKind.TEXT:
                return _choice(delta={"content": text}, finish_reason=None)
            case PartKind.REASONING:
                return _choice(delta={"reasoning_content": text}, finish_reason=None)
            case _:
                return None

    def last(self, reason: str) -> Json:
        return _choice(delta={}, finish_reason=reason)

    def whole(self, texts: list[tuple[str, str]], reason: str) -> Json:
        message: Json = {"role": "assistant", "content": _joined(texts, PartKind.TEXT)}
        reasoning = _joined(texts, PartKind.REASONING)
        if reasoning:
            message["reasoning_content"] = reasoning
        return _choice(message=message, finish_reason=reason)


class CompletionShape:
    chunk_object = "text_completion"
    object = "text_completion"
    id_prefix = "cmpl-"

    def first(self) -> Json | None:
        return None

    def delta(self, text: str, part: Part | Open) -> Json | None:
        return _choice(text=text, finish_reason=None) if part.kind == PartKind.TEXT else None

    def last(self, reason: str) -> Json:
        return _choice(text="", finish_reason=reason)

    def whole(self, texts: list[tuple[str, str]], reason: str) -> Json:
        return _choice(text=_joined(texts, PartKind.TEXT), finish_reason=reason)


class ChunkFraming:
    """Events of a `hold` attachment as OpenAI's chunks."""

    def __init__(self, shape: Shape, head: Json, *, include_usage: bool) -> None:
        self._shape = shape
        self._head = {**head, "object": shape.chunk_object}
        self._include_usage = include_usage
        self._part: Part | Open | None = None

    def preamble(self) -> bytes:
        first = self._shape.first()
        return b"" if first is None else self._chunk([first])

    def encode(self, event: ServerEvent) -> bytes:
        match event:
            case Open() | Part():
                self._part = event
                return b""
            case Commit():
                assert self._part is not None
                choice = self._shape.delta(event.text, self._part)
                return b"" if choice is None else self._chunk([choice])
            case Finish(reason=reason) if reason not in COMPLETE_REASONS:
                return _data(error_shape(cut_short(reason)))
            case Finish():
                last = self._chunk([self._shape.last(event.reason)])
                usage = self._chunk([], usage_shape(event.usage)) if self._include_usage else b""
                return last + usage + DONE
            case Error():
                return _data(error_shape(as_request_error(event)))
            case Heartbeat():
                return b":\n\n"
            case _:  # a `hold` attachment is sent nothing tentative
                return b""

    def _chunk(self, choices: list[Json], usage: Json | None = None) -> bytes:
        chunk = {**self._head, "choices": choices}
        if self._include_usage:
            chunk["usage"] = usage
        return _data(chunk)


def error_shape(error: RequestError | BackendError) -> Json:
    status = HTTP_STATUS[error.code]
    return {
        "error": {
            "message": error.message,
            "type": "server_error" if status >= 500 else "invalid_request_error",
            "param": getattr(error, "param", None),
            "code": error.code.value,
        }
    }


def as_request_error(event: Error) -> RequestError:
    known = {code.value: code for code in ErrorCode}
    return RequestError(known.get(event.code, ErrorCode.ENGINE_FAILED), event.message)


def cut_short(reason: str) -> RequestError:
    return RequestError(
        ErrorCode.ENGINE_FAILED, f"the answer is not complete: the stream ended with {reason!r}"
    )


def _choice(*, finish_reason: str | None, **content: Any) -> Json:
    return {"index": 0, **content, "logprobs": None, "finish_reason": finish_reason}


def _joined(texts: list[tuple[str, str]], kind: str) -> str:
    return "".join(text for part_kind, text in texts if part_kind == kind)


def usage_shape(usage: Usage) -> Json:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_prompt_tokens},
        "completion_tokens_details": {
            "accepted_prediction_tokens": usage.accepted_tokens,
            "rejected_prediction_tokens": usage.rejected_tokens,
        },
    }


def _data(body: Json) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n"
