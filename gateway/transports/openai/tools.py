"""Tools of a chat: which may be called, how the model is told, what a call must look like."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.transports.openai.bodies import NamedChoice
from gateway.transports.openai.errors import UnsupportedError
from protocol.errors import ErrorCode, RequestError
from protocol.requests import Tool, ToolCall

if TYPE_CHECKING:
    from gateway.transports.openai.bodies import ChatCompletionRequest, Function


def functions_of(request: ChatCompletionRequest) -> list[Function]:
    """The functions of which one will be called; none where text is to come.

    Raises RequestError for a choice that cannot be left to the model, or of what there is not.
    """
    functions = [tool.function for tool in request.tools]
    match request.tool_choice:
        case "required":
            chosen = functions
        case NamedChoice(function=wanted):
            chosen = [each for each in functions if each.name == wanted.name]
        case "none":
            return []
        case None | "auto":
            if not functions:
                return []
            raise UnsupportedError(
                "tool_choice",
                "auto is not supported beside tools: choose required, none or a function",
            )
    if not chosen:
        raise RequestError(
            ErrorCode.INVALID_VALUE, "tool_choice: there is no such tool in tools", "tool_choice"
        )
    return chosen


def told_of(functions: list[Function], messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """The conversation with the functions in its system message, in the words of many families."""
    described = "\n".join(msgspec.json.encode(each).decode() for each in functions)
    told = (
        f"You can call these functions:\n<tools>\n{described}\n</tools>\n"
        'Answer with one call: {"name": <function name>, "arguments": <arguments as JSON>}'
    )
    first = messages[0] if messages else {"role": "user", "content": ""}
    if first["role"] in ("system", "developer"):
        return [{**first, "content": f"{first['content']}\n\n{told}"}, *messages[1:]]
    return [{"role": "system", "content": told}, *messages]


def call_of(functions: list[Function]) -> ToolCall:
    return ToolCall(
        tools=[
            Tool(name=each.name, parameters=each.parameters or {"type": "object"})
            for each in functions
        ]
    )
