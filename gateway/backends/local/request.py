"""A request as the engine's frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

import msgspec

from engine import frames
from protocol.errors import ErrorCode, RequestError
from protocol.requests import JsonSchema, Lark, Regex, ToolCall

if TYPE_CHECKING:
    from collections.abc import Sequence

    from protocol.requests import GenerationRequest, Grammar

LARGEST_INTEGER = 2**53 - 1
"""Larger ones have no place in a request; beyond 64 bits MessagePack has no form for them."""


def start_frame(
    stream: str, request: GenerationRequest, *, want_drafts: bool, tenant: str, begun: str = ""
) -> frames.Start:
    """Raises `RequestError` for what only the engine's wire is stricter about."""
    _require_small_integers("max_tokens", [request.max_tokens])
    _require_small_integers("top_k", [request.top_k or 0])
    _require_small_integers("stop_token_ids", request.stop_token_ids)
    if isinstance(request.grammar, ToolCall) and (request.stop or request.stop_token_ids):
        field = "stop" if request.stop else "stop_token_ids"
        raise RequestError(
            ErrorCode.INVALID_VALUE,
            f"{field} cannot be combined with tools: half a call is no call",
            field,
        )
    messages = request.messages
    sampling = frames.SamplingParams(
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        min_p=request.min_p,
        seed=request.seed,
        stop=request.stop,
        stop_token_ids=request.stop_token_ids,
        ignore_eos=request.ignore_eos,
        frequency_penalty=request.frequency_penalty,
        presence_penalty=request.presence_penalty,
        repetition_penalty=request.repetition_penalty,
        logit_bias=_token_biases(request.logit_bias),
        logprobs="logprobs" in request.include,
        grammar=None if request.grammar is None else _grammar(request.grammar),
    )
    return frames.Start(
        stream=stream,
        prompt=request.prompt,
        messages=None
        if messages is None
        else [frames.ChatMessage(message.role, message.content) for message in messages],
        sampling=sampling,
        drafter=request.draft.drafter,
        draft_length=request.draft.length,
        prediction=request.prediction,
        priority=request.priority,
        want_drafts=want_drafts,
        committed=[],
        committed_chars=0,
        salt=tenant.encode(),
        begun=begun,
    )


def _grammar(grammar: Grammar) -> frames.Grammar:
    match grammar:
        case JsonSchema(schema=schema):
            return frames.Grammar("json_schema", msgspec.json.encode(schema).decode())
        case Regex(pattern=pattern):
            return frames.Grammar("regex", pattern)
        case Lark(rules=rules):
            return frames.Grammar("lark", rules)
        case ToolCall(tools=tools):
            return frames.Grammar("tool_call", msgspec.json.encode(tools).decode())
        case _:
            assert_never(grammar)


def _require_small_integers(param: str, values: Sequence[int]) -> None:
    if max(values, default=0) > LARGEST_INTEGER:
        raise RequestError(
            ErrorCode.INVALID_VALUE, f"{param}: a number is over {LARGEST_INTEGER}", param
        )


def _token_biases(biases: dict[str, float]) -> dict[int, float]:
    for key in biases:
        if not (key.isascii() and key.isdecimal() and len(key) <= len(str(LARGEST_INTEGER))):
            raise RequestError(
                ErrorCode.INVALID_VALUE,
                f"logit_bias: {key[:40]!r} is not a token id; keys are token ids in decimal",
                "logit_bias",
            )
    return {int(key): bias for key, bias in biases.items()}
