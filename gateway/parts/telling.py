"""Tools and calls in the words of a chat, for models whose template has no place for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from protocol.requests import Message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from protocol.requests import Tool


def told(tools: Sequence[Tool], messages: Sequence[Message], *, required: bool) -> list[Message]:
    """The conversation with the tools in its system message and earlier calls as text, in the words
    of many families.
    """
    plain = [_plain(message) for message in messages]
    if not tools:
        return plain
    described = "\n".join(
        msgspec.json.encode({"type": "function", "function": each}).decode() for each in tools
    )
    when = "Answer with a call" if required else "If a call helps, answer with it"
    text = (
        f"You can call these functions:\n<tools>\n{described}\n</tools>\n{when}:\n"
        '<tool_call>\n{"name": <function name>, "arguments": <arguments as JSON>}\n</tool_call>'
    )
    first = plain[0] if plain else None
    if first is not None and first.role in ("system", "developer"):
        return [Message(first.role, f"{first.content}\n\n{text}"), *plain[1:]]
    return [Message("system", text), *plain]


def _plain(message: Message) -> Message:
    if not message.tool_calls:
        return Message(message.role, message.content)
    calls = [
        f'<tool_call>\n{{"name": {msgspec.json.encode(call.name).decode()}, '
        f'"arguments": {call.arguments or "{}"}}}\n</tool_call>'
        for call in message.tool_calls
    ]
    return Message(message.role, "\n".join([message.content, *calls] if message.content else calls))
