"""OpenAI's request bodies, and the generations they ask for.

Which field is honoured, let through or refused says parameters.py; the structs here are the
honoured ones.
"""

from __future__ import annotations

import difflib
from typing import (
    TYPE_CHECKING,
    Any,
    NamedTuple,
    TypeAlias,
    TypeVar,
    assert_never,
    cast,
)

import msgspec

from gateway.transports.openai.bodies import (
    MOST_CHOICES,
    ChatCompletionRequest,
    ChatMessage,
    CompletionRequest,
    JsonFormat,
    NamedChoice,
    ResponseFormat,
    SchemaFormat,
    SharedRequest,
    TextFormat,
    Vendor,
    plain,
)
from gateway.transports.openai.errors import UnsupportedError
from gateway.transports.openai.parameters import (
    CHAT,
    COMPLETIONS,
    MESSAGE,
    STREAM_OPTIONS,
    Fate,
    Parameter,
    Parameters,
)
from gateway.transports.openai.tools import offered
from protocol.codec import MALFORMED, with_whole_numbers
from protocol.errors import ErrorCode, RequestError
from protocol.refusals import cut, malformed, quoted, refusal
from protocol.repeated_names import refuse_repeated_names_json
from protocol.requests import (
    GenerationRequest,
    Hold,
    JsonSchema,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

Json: TypeAlias = dict[str, Any]
Body = TypeVar("Body")

LARGEST_SEED = 2**63 - 1


class Wanted(NamedTuple):
    """What an endpoint has to run, and how to tell it."""

    choices: list[GenerationRequest]
    """One per choice, in the order of their `index`."""
    per_prompt: int
    """How many choices in a row are of one prompt."""
    streaming: bool
    include_usage: bool
    logprobs: bool
    vendor: bool
    """Whether chunks say what Wetink's own events say."""


def decode_chat(body: bytes) -> ChatCompletionRequest:
    """Raises RequestError naming the field and what is allowed."""
    asked = honoured(parsed(body), CHAT)
    if isinstance(asked.get("messages"), list):
        asked["messages"] = [
            honoured(cast("Json", each), MESSAGE, f"messages[{number}].")
            if isinstance(each, dict)
            else each
            for number, each in enumerate(cast("list[object]", asked["messages"]))
        ]
    request = converted(asked, ChatCompletionRequest)
    for number, message in enumerate(request.messages):
        if message.content is None and not message.tool_calls:
            param = f"messages[{number}].content"
            raise RequestError(
                ErrorCode.MISSING_FIELD, f"{param} is required: a string or a list", param
            )
    if request.max_tokens is not None and request.max_completion_tokens is not None:
        raise RequestError(
            ErrorCode.INVALID_VALUE,
            "give max_completion_tokens or max_tokens, not both",
            "max_tokens",
        )
    if request.top_logprobs and not request.logprobs:
        raise RequestError(
            ErrorCode.INVALID_VALUE, "top_logprobs: only with logprobs true", "top_logprobs"
        )
    _check_shared(request)
    return request


def decode_completion(body: bytes) -> CompletionRequest:
    """Raises RequestError naming the field and what is allowed."""
    asked = honoured(parsed(body), COMPLETIONS)
    request = converted(asked, CompletionRequest)
    _check_shared(request)
    if not isinstance(request.prompt, str) and request.n * len(request.prompt) > MOST_CHOICES:
        raise RequestError(
            ErrorCode.INVALID_VALUE, f"n: at most {MOST_CHOICES} choices over all prompts", "n"
        )
    return request


def from_chat(request: ChatCompletionRequest, context: int) -> Wanted:
    """`context`: the model's, in tokens. Raises RequestError where a value is out of range."""
    tools, choice = offered([tool.function for tool in request.tools], request.tool_choice)
    messages = [_message(message) for message in request.messages]
    prediction = request.prediction and plain(request.prediction.content)
    fields = {
        "messages": messages,
        "prediction": prediction,
        "top_logprobs": request.top_logprobs,
    }
    named = "max_tokens" if request.max_completion_tokens is None else "max_completion_tokens"
    generation = _generation(request, fields, named, context, logprobs=request.logprobs)
    generation = msgspec.structs.replace(
        generation,
        grammar=_grammar(request.response_format),
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=request.parallel_tool_calls is not False
        and not isinstance(request.tool_choice, NamedChoice),
    )
    return _wanted(request, [generation], logprobs=request.logprobs)


def _grammar(wanted: ResponseFormat) -> JsonSchema | None:
    match wanted:
        case TextFormat():
            return None
        case JsonFormat():
            return JsonSchema(schema={"type": "object"})
        case SchemaFormat(json_schema=named):
            return JsonSchema(schema=named.schema)
        case _:
            assert_never(wanted)


def from_completion(request: CompletionRequest, context: int) -> Wanted:
    """`context`: the model's, in tokens. Raises RequestError where a value is out of range."""
    logprobs = request.logprobs is not None
    prompts = [request.prompt] if isinstance(request.prompt, str) else request.prompt
    generations = [_completion(request, prompt, context) for prompt in prompts]
    return _wanted(request, generations, logprobs=logprobs)


def _completion(request: CompletionRequest, prompt: str, context: int) -> GenerationRequest:
    fields = {"prompt": prompt, "top_logprobs": request.logprobs}
    logprobs = request.logprobs is not None
    try:
        return _generation(request, fields, "max_tokens", context, logprobs=logprobs)
    except RequestError as error:
        if error.param != "top_logprobs":
            raise
        message = error.message.replace("top_logprobs", "logprobs")
        raise RequestError(error.code, message, "logprobs") from None


def in_openai_words(error: RequestError) -> RequestError:
    """A refusal of the generation, about the field that the caller wrote."""
    given = error.param or ""
    param = given.replace("grammar.schema", "response_format.json_schema.schema", 1)
    if param.startswith("tools["):
        param = param.replace("].parameters", "].function.parameters", 1)
    if param == given:
        return error
    return RequestError(error.code, error.message.replace(given, param, 1), param)


def _wanted(request: SharedRequest, prompts: list[GenerationRequest], *, logprobs: bool) -> Wanted:
    options = request.stream_options
    return Wanted(
        choices=[_numbered(prompt, number) for prompt in prompts for number in range(request.n)],
        per_prompt=request.n,
        streaming=request.stream,
        include_usage=options is not None and options.include_usage,
        logprobs=logprobs,
        vendor=request.wetink is not None,
    )


def _numbered(generation: GenerationRequest, number: int) -> GenerationRequest:
    """Choice `number` of it: with a seed of its own, or all would say the same."""
    if generation.seed is None or number == 0:
        return generation
    return msgspec.structs.replace(generation, seed=(generation.seed + number) % (LARGEST_SEED + 1))


def _generation(
    request: SharedRequest, own: Json, max_tokens: str, context: int, *, logprobs: bool
) -> GenerationRequest:
    """`own`: the endpoint's own fields. `max_tokens`: what the caller called that field."""
    vendor = request.wetink or Vendor()
    include = [*vendor.include]
    if logprobs and "logprobs" not in include:
        include.append("logprobs")
    asked = getattr(request, max_tokens)
    fields: Json = {
        **own,
        "model": request.model,
        "max_tokens": context if asked is None else asked,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "min_p": request.min_p,
        "seed": request.seed,
        "stop": [request.stop] if isinstance(request.stop, str) else request.stop,
        "stop_token_ids": request.stop_token_ids,
        "ignore_eos": request.ignore_eos,
        "frequency_penalty": request.frequency_penalty,
        "presence_penalty": request.presence_penalty,
        "repetition_penalty": request.repetition_penalty,
        "logit_bias": request.logit_bias,
    }
    raw = {name: value for name, value in fields.items() if value is not None}
    try:
        generation = msgspec.convert(raw, GenerationRequest)
    except msgspec.ValidationError as error:
        refused = refusal(error, raw, GenerationRequest)
        if refused.param != "max_tokens":
            raise refused from None
        message = refused.message.replace("max_tokens", max_tokens)
        raise RequestError(refused.code, message, max_tokens) from None
    return msgspec.structs.replace(
        generation,
        policy=Hold() if vendor.policy is None else vendor.policy,
        offsets=vendor.offsets,
        include=include,
        draft=vendor.draft,
    )


def parsed(body: bytes) -> Json:
    """A body as it stands. Raises RequestError."""
    try:
        raw = msgspec.json.decode(body)
    except MALFORMED as error:
        raise malformed(error, body) from None
    if not isinstance(raw, dict):
        raise RequestError(
            ErrorCode.INVALID_VALUE, f"the body must be an object, not {quoted(raw)}"
        )
    refuse_repeated_names_json(body)
    return cast("Json", raw)


def honoured(raw: Json, parameters: Parameters, prefix: str = "") -> Json:
    """The fields that mean something here. Null says what leaving a field out says.

    Raises RequestError for what is unknown or refused.
    """
    for name, value in raw.items():
        parameter = parameters.get(name)
        if parameter is None:
            raise _unknown(name, parameters, prefix)
        if parameter.fate is Fate.REFUSED and not _asks_nothing(value, parameter):
            raise UnsupportedError(prefix + name, parameter.note)
    asked = {
        name: value
        for name, value in raw.items()
        if value is not None and parameters[name].fate is Fate.HONOURED
    }
    options = asked.get("stream_options")
    if isinstance(options, dict):
        asked["stream_options"] = honoured(cast("Json", options), STREAM_OPTIONS, "stream_options.")
    return asked


def _asks_nothing(value: object, parameter: Parameter) -> bool:
    """1 is not true here, nor 0 false."""
    return value is None or any(
        type(value) is type(each) and value == each for each in parameter.neutral
    )


def _unknown(name: str, parameters: Mapping[str, object], prefix: str) -> RequestError:
    near = difflib.get_close_matches(name, parameters, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    param = prefix + cut(name)
    return RequestError(ErrorCode.UNKNOWN_FIELD, f"{param} is unknown{hint}", param)


def converted(raw: Json, wanted: type[Body]) -> Body:
    """Raises RequestError naming the field and what is allowed."""
    try:
        return msgspec.convert(raw, wanted)
    except msgspec.ValidationError as error:
        return with_whole_numbers(error, raw, wanted)


def _check_shared(request: SharedRequest) -> None:
    if request.stream:
        return
    if request.stream_options is not None:
        raise RequestError(
            ErrorCode.INVALID_VALUE, "stream_options: only with stream true", "stream_options"
        )
    if request.wetink is not None and request.wetink.policy is not None:
        raise RequestError(
            ErrorCode.INVALID_VALUE, "wetink.policy: only with stream true", "wetink.policy"
        )


def _message(message: ChatMessage) -> Json:
    """As a generation has it."""
    calls = [
        {
            "name": call.function.name,
            "arguments": call.function.arguments,
            "id": call.id,
        }
        for call in message.tool_calls
    ]
    return {
        "role": message.role,
        "content": "" if message.content is None else plain(message.content),
        "tool_calls": calls,
        "tool_call_id": message.tool_call_id or "",
    }
