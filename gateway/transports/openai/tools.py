"""Tools of a chat: which may be called, and whether one has to be."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.transports.openai.bodies import NamedChoice
from protocol.errors import ErrorCode, RequestError
from protocol.requests import Tool, ToolChoice

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from gateway.transports.openai.bodies import Function


class Offered(NamedTuple):
    """Fields of a generation."""

    tools: list[Tool]
    tool_choice: ToolChoice


def offered(
    functions: Sequence[Function],
    choice: Literal["none", "auto", "required"] | NamedChoice | None,
) -> Offered:
    """Raises RequestError for a choice of what there is not."""
    match choice:
        case None | "auto":
            chosen, wanted = functions, "auto"
        case "none":
            return Offered([], "auto")
        case "required":
            chosen, wanted = functions, "required"
        case NamedChoice(function=named):
            chosen, wanted = [each for each in functions if each.name == named.name], "required"
    if not chosen and wanted == "required":
        raise RequestError(
            ErrorCode.INVALID_VALUE, "tool_choice: there is no such tool in tools", "tool_choice"
        )
    tools = [
        Tool(
            name=each.name,
            description=each.description or "",
            parameters=each.parameters or {"type": "object"},
        )
        for each in chosen
    ]
    return Offered(tools, wanted)
