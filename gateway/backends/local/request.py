"""A request as the engine's frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_never

import msgspec

from engine import frames
from gateway.parts import told
from protocol.errors import ErrorCode, RequestError
from protocol.requests import JsonSchema, Lark, Regex

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.parts import Dialect
    from protocol.requests import GenerationRequest, Grammar, Message, Tool

LARGEST_INTEGER = 2**53 - 1
"""Larger ones have no place in a request; beyond 64 bits MessagePack has no form for them."""


def start_frame(
    stream: str,
    request: GenerationRequest,
    dialect: Dialect,
    *,
    want_drafts: bool,
    tenant: str,
    begun: str = "",
) -> frames.Start:
    """Raises `RequestError` for what only the engine's wire is stricter about."""
    _require_small_integers("max_tokens", [request.max_tokens])
    _require_small_integers("top_k", [request.top_k or 0])
    _require_small_integers("stop_token_ids", request.stop_token_ids)
    if request.top_logprobs and "logprobs" not in request.include:
        raise RequestError(
            ErrorCode.INVALID_VALUE, 'top_logprobs: only with "logprobs" in include', "top_logprobs"
        )
    tools = [] if request.tool_choice == "none" else request.tools
    required = bool(tools) and request.tool_choice == "required"
    if required and (request.stop or request.stop_token_ids):
        field = "stop" if request.stop else "stop_token_ids"
        raise RequestError(
            ErrorCode.INVALID_VALUE,
            f"{field}: not where a call is required, as half a call is none",
            field,
        )
    if tools and request.messages is None:
        raise RequestError(ErrorCode.INVALID_VALUE, "tools: only with messages", "tools")
    messages = request.messages
    if messages is not None and not dialect.knows_tools:
        messages = told(tools, messages, required=required)
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
        top_logprobs=request.top_logprobs,
        grammar=_grammar(request, dialect, tools),
    )
    return frames.Start(
        stream=stream,
        prompt=request.prompt,
        messages=None if messages is None else [_message(message) for message in messages],
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
        tools=[frames.Tool(each.name, each.description, each.parameters) for each in tools]
        if dialect.knows_tools
        else [],
    )


def _message(message: Message) -> frames.ChatMessage:
    calls = [frames.Call(each.name, each.arguments, each.id) for each in message.tool_calls]
    return frames.ChatMessage(message.role, message.content, calls, message.tool_call_id)


def _grammar(
    request: GenerationRequest, dialect: Dialect, tools: Sequence[Tool]
) -> frames.Grammar | None:
    """With tools: calls, where one is required; else calls or what the answer has to follow."""
    grammar = request.grammar
    if not tools or (grammar is None and request.tool_choice != "required"):
        return None if grammar is None else _of_text(grammar)
    if request.tool_choice == "required":
        grammar = None
    if grammar is not None and not isinstance(grammar, JsonSchema):
        raise RequestError(
            ErrorCode.INVALID_VALUE, "grammar: beside tools only a json_schema", "grammar"
        )
    calls = dialect.calls
    form: dict[str, Any] = {
        "tools": tools,
        "begin": calls.begin,
        "between": calls.between if request.parallel_tool_calls else None,
        "end": calls.end,
        "arguments": calls.arguments,
        "otherwise": None if grammar is None else grammar.schema,
    }
    return frames.Grammar("tool_call", msgspec.json.encode(form).decode())


def _of_text(grammar: Grammar) -> frames.Grammar:
    match grammar:
        case JsonSchema(schema=schema):
            return frames.Grammar("json_schema", msgspec.json.encode(schema).decode())
        case Regex(pattern=pattern):
            return frames.Grammar("regex", pattern)
        case Lark(rules=rules):
            return frames.Grammar("lark", rules)
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
