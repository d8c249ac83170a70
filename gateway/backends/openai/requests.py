"""A generation as an upstream is asked for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, assert_never

import msgspec

from protocol.errors import ErrorCode, RequestError
from protocol.requests import GenerationRequest, JsonSchema, Lark, Regex

if TYPE_CHECKING:
    from gateway.backends.openai.dialects import Dialect
    from protocol.requests import Grammar, Message

Json: TypeAlias = dict[str, Any]


class Asked(NamedTuple):
    """What is sent: a body for a path below the API's URL."""

    path: str
    body: Json
    name: str | None = None
    """By which the server is to know it (`X-Request-Id`)."""

    @property
    def is_chat(self) -> bool:
        return self.path == "/chat/completions"

    def encoded(self) -> bytes:
        return msgspec.json.encode(self.body)


def asked_of(
    request: GenerationRequest,
    dialect: Dialect,
    *,
    model: str,
    context_length: int,
    takes_seed: bool = True,
) -> Asked:
    """`model`: its name there; `context_length`: in tokens. Raises RequestError naming the field
    where the dialect has no words for what is asked.
    """
    is_chat = request.messages is not None
    body: Json = {"model": model, "stream": True, "stream_options": {"include_usage": True}}
    if request.messages is not None:
        body["messages"] = [_message(each) for each in request.messages]
    else:
        body["prompt"] = request.prompt
    # Who wants all the context that is left names no number: not every upstream cuts it to fit.
    if request.max_tokens < context_length:
        body[dialect.chat_max_tokens if is_chat else "max_tokens"] = request.max_tokens
    if takes_seed and request.seed is not None:
        body["seed"] = request.seed
    body |= _sampling(request, dialect)
    if {"tokens", "logprobs"}.intersection(request.include):
        body["logprobs"] = True if is_chat else 0
        if dialect.token_ids is not None:
            body[dialect.token_ids] = True
    if request.grammar is not None:
        body |= _grammar(request.grammar, dialect, is_chat=is_chat)
    if request.tools:
        body |= _tools(request)
    return Asked("/chat/completions" if is_chat else "/completions", body)


def continued(asked: Asked, dialect: Dialect, text: str, tokens: int) -> Asked | None:
    """The same, to go on behind `text`, which was `tokens` tokens; None where that is impossible.

    Grammars cannot be entered in the middle, and what is sampled by a seed differs behind a prefix.
    """
    body = dict(asked.body)
    if _GRAMMAR_FIELDS.intersection(body):
        return None
    if not asked.is_chat:
        body["prompt"] = f"{body['prompt']}{text}"
    elif dialect.continues is None:
        return None
    else:
        body["messages"] = [*body["messages"], {"role": "assistant", "content": text}]
        if dialect.continues == "flags":
            body |= {"continue_final_message": True, "add_generation_prompt": False}
    for name in ("max_tokens", "max_completion_tokens"):
        if name in body:
            body[name] = max(1, body[name] - tokens)
    return Asked(asked.path, body)


_GRAMMAR_FIELDS = {"response_format", "tools", "structured_outputs", "regex"}


def _message(message: Message) -> Json:
    body: Json = {"role": message.role, "content": message.content}
    if message.tool_calls:
        body["tool_calls"] = [
            {
                "id": each.id,
                "type": "function",
                "function": {"name": each.name, "arguments": each.arguments},
            }
            for each in message.tool_calls
        ]
    if message.tool_call_id:
        body["tool_call_id"] = message.tool_call_id
    return body


def _tools(request: GenerationRequest) -> Json:
    if request.messages is None:
        raise RequestError(ErrorCode.INVALID_VALUE, "tools: only with messages", "tools")
    functions = [
        {
            "type": "function",
            "function": {
                "name": each.name,
                "description": each.description,
                "parameters": each.parameters,
            },
        }
        for each in request.tools
    ]
    body: Json = {"tools": functions, "tool_choice": request.tool_choice}
    return body if request.parallel_tool_calls else body | {"parallel_tool_calls": False}


def _sampling(request: GenerationRequest, dialect: Dialect) -> Json:
    """What differs from what leaving it out says."""
    body: Json = {}
    for name in ("temperature", "top_p"):
        if (value := getattr(request, name)) is not None:
            body[name] = value
    for name in ("frequency_penalty", "presence_penalty", "logit_bias", "stop"):
        if value := getattr(request, name):
            body[name] = value
    for name, neutral in _BEYOND.items():
        value = getattr(request, name)
        if value in neutral:
            continue
        if name not in dialect.sampling:
            raise _without_words(name)
        body[dialect.sampling[name]] = value
    return body


_BEYOND: dict[str, tuple[object, ...]] = {
    "top_k": (None,),
    "min_p": (None, 0.0),
    "repetition_penalty": (1.0,),
    "stop_token_ids": ([],),
    "ignore_eos": (False,),
    "top_logprobs": (0,),
}
"""With what asks for nothing. `top_k` 0 does: it switches the model's own off."""


def _grammar(grammar: Grammar, dialect: Dialect, *, is_chat: bool) -> Json:
    match grammar:
        case JsonSchema(schema=schema) if is_chat or dialect.name == "vllm":
            named = {"name": "answer", "schema": schema, "strict": True}
            return {"response_format": {"type": "json_schema", "json_schema": named}}
        case Regex(pattern=pattern) if dialect.grammars is not None:
            return {"regex": pattern} if dialect.grammars == "regex" else _structured(regex=pattern)
        case Lark(rules=rules) if dialect.grammars == "structured_outputs":
            return _structured(grammar=rules)
        case JsonSchema() | Regex() | Lark():
            raise _without_words("grammar")
        case _:
            assert_never(grammar)


def _structured(**of: str) -> Json:
    return {"structured_outputs": of}


def _without_words(param: str) -> RequestError:
    return RequestError(
        ErrorCode.INVALID_VALUE,
        f"{param}: the upstream that serves this model cannot be asked for it; leave it out",
        param,
    )
