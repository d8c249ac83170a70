"""What a body asks for, as a generation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway.transports.openai.bodies import FunctionName, NamedChoice
from gateway.transports.openai.parameters import RESPONSES
from gateway.transports.openai.requests import converted, honoured, parsed
from gateway.transports.openai.responses.bodies import (
    FlatChoice,
    FlatSchema,
    InputCall,
    InputMessage,
    InputResult,
    InputText,
    Item,
    ObjectFormat,
    ResponseRequest,
)
from gateway.transports.openai.tools import offered
from protocol.errors import ErrorCode, RequestError
from protocol.refusals import quoted, refusal
from protocol.requests import Call, GenerationRequest, Hold, JsonSchema, Message

if TYPE_CHECKING:
    from collections.abc import Sequence

_ITEMS: dict[str, type[Item]] = {
    "message": InputMessage,
    "function_call": InputCall,
    "function_call_output": InputResult,
}
REASONING = "reasoning"
"""Items that earlier answers had; models are not shown earlier reasoning."""


def decode(body: bytes) -> ResponseRequest:
    """Raises RequestError naming the field and what is allowed."""
    return converted(honoured(parsed(body), RESPONSES), ResponseRequest)


def messages_of(request: ResponseRequest) -> list[Message]:
    """What is new in the conversation. Raises RequestError naming the item at fault."""
    if isinstance(request.input, str):
        return [Message("user", request.input)]
    messages: list[Message] = []
    for number, raw in enumerate(request.input):
        item = _item(raw, f"input[{number}]")
        match item:
            case InputMessage(role=role, content=content):
                messages.append(Message(role, _plain(content)))
            case InputCall(name=name, arguments=arguments, call_id=id):
                _add_call(messages, Call(name, arguments, id))
            case InputResult(call_id=id, output=output):
                messages.append(Message("tool", _plain(output), tool_call_id=id))
            case None:
                pass
    if not messages:
        raise RequestError(ErrorCode.INVALID_VALUE, "input: there is no message in it", "input")
    return messages


def generation_of(
    request: ResponseRequest, conversation: Sequence[Message], context: int
) -> GenerationRequest:
    """`context`: the model's, in tokens. Raises RequestError where a value is out of range."""
    choice = request.tool_choice
    if isinstance(choice, FlatChoice):
        choice = NamedChoice(FunctionName(choice.name))
    tools, wanted = offered(request.tools, choice)
    system = [Message("system", request.instructions)] if request.instructions else []
    raw: dict[str, Any] = {
        "model": request.model,
        "max_tokens": request.max_output_tokens or context,
        "temperature": request.temperature,
        "top_p": request.top_p,
    }
    given = {name: value for name, value in raw.items() if value is not None}
    try:
        generation = msgspec.convert(given, GenerationRequest)
    except msgspec.ValidationError as error:
        raise refusal(error, given, GenerationRequest) from None
    return msgspec.structs.replace(
        generation,
        messages=[*system, *conversation],
        grammar=_grammar(request),
        tools=tools,
        tool_choice=wanted,
        parallel_tool_calls=request.parallel_tool_calls and not isinstance(choice, NamedChoice),
        policy=Hold(),
    )


def in_words_of_responses(error: RequestError) -> RequestError:
    """A refusal of the generation, about the field that the caller wrote."""
    given = error.param or ""
    param = given.replace("grammar.schema", "text.format.schema", 1)
    param = {"messages": "input", "max_tokens": "max_output_tokens"}.get(param, param)
    if param == given:
        return error
    return RequestError(error.code, error.message.replace(given, param, 1), param)


def _grammar(request: ResponseRequest) -> JsonSchema | None:
    match request.text.format:
        case FlatSchema(schema=schema):
            return JsonSchema(schema=schema)
        case ObjectFormat():
            return JsonSchema(schema={"type": "object"})
        case _:
            return None


def _item(raw: dict[str, Any], param: str) -> Item | None:
    kind = raw.get("type", "message")
    if kind == REASONING:
        return None
    wanted = _ITEMS.get(kind) if isinstance(kind, str) else None
    if wanted is None:
        raise RequestError(
            ErrorCode.INVALID_VALUE,
            f"{param}.type: {quoted(kind)} is not supported; {', '.join(_ITEMS)} are",
            f"{param}.type",
        )
    try:
        return msgspec.convert(raw, wanted)
    except msgspec.ValidationError as error:
        refused = refusal(error, raw, wanted)
        path = f"{param}.{refused.param}" if refused.param else param
        message = refused.message.replace(refused.param or "", path, 1)
        raise RequestError(refused.code, message, path) from None


def _add_call(messages: list[Message], call: Call) -> None:
    """To the assistant's message right before it, where there is one."""
    last = messages[-1] if messages else None
    if last is not None and last.role == "assistant":
        calls = [*last.tool_calls, call]
        messages[-1] = msgspec.structs.replace(last, tool_calls=calls)
    else:
        messages.append(Message("assistant", "", [call]))


def _plain(content: str | list[InputText]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)
