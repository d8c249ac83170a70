"""OpenAI's request bodies, and what they mean as a `GenerationRequest`.

Fields that change nothing here (`user`, `metadata`, `store`…) are let through, as OpenAI's clients
send many. A field that asks for another result than it would get is refused by name.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from protocol.codec import MALFORMED, with_whole_numbers
from protocol.errors import ErrorCode, RequestError
from protocol.refusals import malformed, refusal
from protocol.repeated_names import refuse_repeated_names_json
from protocol.requests import GenerationRequest


class TextPart(msgspec.Struct, frozen=True):
    text: str
    type: Literal["text"] = "text"


class ChatMessage(msgspec.Struct, frozen=True):
    role: Literal["system", "user", "assistant", "tool", "developer"]
    content: str | list[TextPart]


class Prediction(msgspec.Struct, frozen=True):
    """Text the answer is likely to repeat; the drafter copies from it."""

    content: str | list[TextPart]
    type: Literal["content"] = "content"


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool = False


class ResponseFormat(msgspec.Struct, frozen=True):
    type: str = "text"


class _Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """What both endpoints share, and the fields of either that must not be ignored."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    prediction: Prediction | None = None
    n: int | None = None
    logprobs: bool | int | None = None
    # Not OpenAI's own, but common among servers of its interface.
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None


class ChatCompletionRequest(_Sampling, frozen=True, kw_only=True):
    """Body of `POST /v1/chat/completions`."""

    messages: list[ChatMessage]
    max_completion_tokens: int | None = None
    top_logprobs: int | None = None
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    response_format: ResponseFormat | None = None
    modalities: list[str] | None = None
    audio: Any = None
    web_search_options: Any = None


class CompletionRequest(_Sampling, frozen=True, kw_only=True):
    """Body of `POST /v1/completions`."""

    prompt: str | list[str]
    best_of: int | None = None
    echo: bool | None = None
    suffix: str | None = None


def decode_chat(body: bytes) -> ChatCompletionRequest:
    """Raises RequestError."""
    request: ChatCompletionRequest = _decode(body, ChatCompletionRequest)
    _refuse_shared(request)
    _refuse(bool(request.tools), "tools", "tools are not supported; leave it out")
    _refuse(bool(request.functions), "functions", "functions are not supported; leave it out")
    formatted = request.response_format is not None and request.response_format.type != "text"
    _refuse(formatted, "response_format.type", "only 'text' is supported")
    _refuse(bool(request.top_logprobs), "top_logprobs", "log probabilities are not supported here")
    others = [kind for kind in request.modalities or [] if kind != "text"]
    _refuse(bool(others), "modalities", "only 'text' is supported")
    _refuse(request.audio is not None, "audio", "audio is not supported; leave it out")
    _refuse(
        request.web_search_options is not None,
        "web_search_options",
        "web search is not supported; leave it out",
    )
    return request


def decode_completion(body: bytes) -> CompletionRequest:
    """Raises RequestError."""
    request: CompletionRequest = _decode(body, CompletionRequest)
    _refuse_shared(request)
    _refuse((request.best_of or 1) != 1, "best_of", "only 1 is supported")
    _refuse(bool(request.echo), "echo", "only false is supported")
    _refuse(bool(request.suffix), "suffix", "insertion is not supported; leave it out")
    several = isinstance(request.prompt, list) and len(request.prompt) != 1
    _refuse(several, "prompt", "give one string; several prompts are several requests")
    return request


def from_chat(request: ChatCompletionRequest) -> GenerationRequest:
    """Raises RequestError where a value is out of range."""
    messages = [
        {"role": message.role, "content": _plain(message.content)} for message in request.messages
    ]
    named = "max_tokens" if request.max_completion_tokens is None else "max_completion_tokens"
    return _build(request, {"messages": messages}, named)


def from_completion(request: CompletionRequest) -> GenerationRequest:
    """Raises RequestError where a value is out of range."""
    prompt = request.prompt if isinstance(request.prompt, str) else request.prompt[0]
    return _build(request, {"prompt": prompt}, "max_tokens")


def _build(
    request: ChatCompletionRequest | CompletionRequest, text: dict[str, Any], max_tokens: str
) -> GenerationRequest:
    """`max_tokens`: what the caller called that field."""
    stop = [request.stop] if isinstance(request.stop, str) else request.stop
    fields: dict[str, Any] = {
        "model": request.model,
        "max_tokens": getattr(request, max_tokens),
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "min_p": request.min_p,
        "seed": request.seed,
        "stop": stop,
        "frequency_penalty": request.frequency_penalty,
        "presence_penalty": request.presence_penalty,
        "repetition_penalty": request.repetition_penalty,
        "logit_bias": request.logit_bias,
        "prediction": _plain(request.prediction.content) if request.prediction else None,
    }
    raw = {**text, **{name: value for name, value in fields.items() if value is not None}}
    try:
        return msgspec.convert(raw, GenerationRequest)
    except msgspec.ValidationError as error:
        refused = refusal(error, raw, GenerationRequest)
        if refused.param != "max_tokens":
            raise refused from None
        message = refused.message.replace("max_tokens", max_tokens)
        raise RequestError(refused.code, message, max_tokens) from None


def _decode(body: bytes, wanted: Any) -> Any:
    try:
        raw = msgspec.json.decode(body)
    except MALFORMED as error:
        raise malformed(error, body) from None
    refuse_repeated_names_json(body)
    try:
        return msgspec.convert(raw, wanted)
    except msgspec.ValidationError as error:
        return with_whole_numbers(error, raw, wanted)


def _refuse_shared(request: ChatCompletionRequest | CompletionRequest) -> None:
    _refuse((request.n or 1) != 1, "n", "only 1 is supported; send several requests")
    wants_logprobs = request.logprobs is not None and request.logprobs is not False
    _refuse(wants_logprobs, "logprobs", "log probabilities are not supported here")


def _refuse(unwanted: bool, param: str, allowed: str) -> None:
    if unwanted:
        raise RequestError(ErrorCode.INVALID_VALUE, f"{param}: {allowed}", param)


def _plain(content: str | list[TextPart]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)
