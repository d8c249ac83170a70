"""The shapes OpenAI's clients know: choices in chunks and in whole answers, logprobs, usage."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from protocol.events import FinishReason, PartKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from protocol.events import Alternative, Usage

Json: TypeAlias = dict[str, Any]

COMPLETE_REASONS = frozenset({FinishReason.STOP, FinishReason.LENGTH, FinishReason.TOOL_CALLS})
"""Any other reason means that the text was cut short by somebody."""


class Scored(NamedTuple):
    """A committed token's text (empty where its bytes only begin a character) and logprob."""

    text: str
    logprob: float
    at: int
    """Code points of its part before it."""
    top: list[Alternative] | None = None


class Piece(NamedTuple):
    """Committed text of one part."""

    kind: str
    name: str | None
    """Of the tool, where it is a call."""
    call: int
    """How many parts of calls are before it."""
    text: str
    scored: list[Scored] | None
    """None where nobody asked for logprobs."""


class Shape(Protocol):
    """Where text goes in a chunk and in a whole answer: chat or plain completion."""

    chunk_object: str
    object: str
    id_prefix: str

    def first(self, index: int) -> Json | None:
        """Choice of a chunk in front of all text, if the shape has one."""
        ...

    def delta(self, index: int, piece: Piece) -> Json | None:
        """Choice of a chunk with `piece`; None where the shape has no place for it."""
        ...

    def begin(self, index: int, piece: Piece, id: str) -> Json | None:
        """Choice of a chunk that announces a part, of which `piece` is the empty beginning.

        `id`: of the call, where it is one.
        """
        ...

    def empty(self, index: int) -> Json:
        """Choice of a chunk that adds nothing."""
        ...

    def last(self, index: int, reason: str) -> Json: ...

    def whole(self, index: int, pieces: Sequence[Piece], reason: str, id: str) -> Json:
        """Choice of a whole answer. `id`: what calls are named after."""
        ...


class ChatShape:
    chunk_object = "chat.completion.chunk"
    object = "chat.completion"
    id_prefix = "chatcmpl-"

    def first(self, index: int) -> Json | None:
        return _choice(index, delta={"role": "assistant", "content": ""})

    def delta(self, index: int, piece: Piece) -> Json | None:
        match piece.kind:
            case PartKind.TEXT:
                logprobs = _chat_logprobs([piece])
                return _choice(index, logprobs=logprobs, delta={"content": piece.text})
            case PartKind.REASONING:
                return _choice(index, delta={"reasoning_content": piece.text})
            case PartKind.TOOL_CALL:
                call = {"index": piece.call, "function": {"arguments": piece.text}}
                return _choice(index, delta={"tool_calls": [call]})
            case _:
                return None

    def begin(self, index: int, piece: Piece, id: str) -> Json | None:
        if piece.kind != PartKind.TOOL_CALL:
            return None
        return _choice(index, delta={"tool_calls": [{"index": piece.call, **_call(piece, id)}]})

    def empty(self, index: int) -> Json:
        return _choice(index, delta={})

    def last(self, index: int, reason: str) -> Json:
        return _choice(index, finish_reason=reason, delta={})

    def whole(self, index: int, pieces: Sequence[Piece], reason: str, id: str) -> Json:
        text = _of(pieces, PartKind.TEXT)
        message: Json = {"role": "assistant", "content": _joined(text), "refusal": None}
        reasoning = _joined(_of(pieces, PartKind.REASONING))
        if reasoning:
            message["reasoning_content"] = reasoning
        calls = _of(pieces, PartKind.TOOL_CALL)
        if calls:
            message["content"] = message["content"] or None
            message["tool_calls"] = [
                _call(whole, id)
                for _, parts in groupby(calls, lambda piece: piece.call)
                if (whole := _together(list(parts)))
            ]
        logprobs = _chat_logprobs(text)
        return _choice(index, finish_reason=reason, logprobs=logprobs, message=message)


class CompletionShape:
    chunk_object = "text_completion"
    object = "text_completion"
    id_prefix = "cmpl-"

    def first(self, index: int) -> Json | None:
        return None

    def delta(self, index: int, piece: Piece) -> Json | None:
        if piece.kind != PartKind.TEXT:
            return None
        return _choice(index, logprobs=_completion_logprobs([piece]), text=piece.text)

    def begin(self, index: int, piece: Piece, id: str) -> Json | None:
        return None

    def empty(self, index: int) -> Json:
        return _choice(index, text="")

    def last(self, index: int, reason: str) -> Json:
        return _choice(index, finish_reason=reason, text="")

    def whole(self, index: int, pieces: Sequence[Piece], reason: str, id: str) -> Json:
        text = _of(pieces, PartKind.TEXT)
        logprobs = _completion_logprobs(text)
        return _choice(index, finish_reason=reason, logprobs=logprobs, text=_joined(text))


def usage_shape(usages: Sequence[Usage], per_prompt: int) -> Json:
    """Of all choices, in order; a prompt counts once, however many choices it has."""
    prompts = usages[::per_prompt]
    prompt = sum(usage.prompt_tokens for usage in prompts)
    completion = sum(usage.completion_tokens for usage in usages)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {
            "cached_tokens": sum(usage.cached_prompt_tokens for usage in prompts)
        },
        "completion_tokens_details": {
            "accepted_prediction_tokens": sum(usage.accepted_tokens for usage in usages),
            "rejected_prediction_tokens": sum(usage.rejected_tokens for usage in usages),
            "reasoning_tokens": sum(usage.reasoning_tokens for usage in usages),
        },
    }


def _choice(
    index: int, *, finish_reason: str | None = None, logprobs: Json | None = None, **content: Any
) -> Json:
    return {"index": index, **content, "logprobs": logprobs, "finish_reason": finish_reason}


def _together(pieces: Sequence[Piece]) -> Piece:
    """Of one part."""
    return pieces[0]._replace(text=_joined(pieces))


def _call(piece: Piece, id: str) -> Json:
    function = {"name": piece.name, "arguments": piece.text}
    return {"id": f"call_{id}_{piece.call}", "type": "function", "function": function}


def _of(pieces: Sequence[Piece], kind: str) -> list[Piece]:
    return [piece for piece in pieces if piece.kind == kind]


def _joined(pieces: Sequence[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def _chat_logprobs(pieces: Sequence[Piece]) -> Json | None:
    if all(piece.scored is None for piece in pieces):
        return None
    content = [
        {
            **_chance(each.text, each.logprob),
            "top_logprobs": [_chance(other.text, other.logprob) for other in each.top or ()],
        }
        for piece in pieces
        for each in piece.scored or ()
    ]
    return {"content": content, "refusal": None}


def _chance(text: str, logprob: float) -> Json:
    # Which bytes a token has that completes no character is not known here.
    return {
        "token": text,
        "logprob": logprob,
        "bytes": list(text.encode()) if text else None,
    }


def _completion_logprobs(pieces: Sequence[Piece]) -> Json | None:
    if all(piece.scored is None for piece in pieces):
        return None
    scored = [each for piece in pieces for each in piece.scored or ()]
    return {
        "tokens": [each.text for each in scored],
        "token_logprobs": [each.logprob for each in scored],
        "top_logprobs": [_by_text(each.top or ()) for each in scored]
        if any(each.top for each in scored)
        else None,
        "text_offset": [each.at for each in scored],
    }


def _by_text(alternatives: Sequence[Alternative]) -> dict[str, float]:
    """Of those with the same text, which may be empty, the most probable one."""
    return {each.text: each.logprob for each in reversed(alternatives)}
