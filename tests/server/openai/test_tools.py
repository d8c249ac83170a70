"""Calls of tools, in OpenAI's shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.backends.base import Drafted, Finished, Verified
from protocol.requests import Tool, ToolCall
from tests.server.openai.asking import CHAT, answer_to, chunks_of

if TYPE_CHECKING:
    from tests.server.gateways import Served

PARAMETERS = {"type": "object", "properties": {"hour": {"type": "integer"}}}
TOOLS = [
    {
        "type": "function",
        "function": {"name": name, "description": "The tide.", "parameters": PARAMETERS},
    }
    for name in ("high", "low")
]
ASKED: dict[str, Any] = {**CHAT, "tools": TOOLS, "tool_choice": "required"}
EVENTS = [
    Drafted('{"name": "low"'),
    Verified('{"name": "high", "argu', cause="draft_rejected"),
    Verified('ments": {"hour": 1'),
    Verified("2}}"),
    Finished("stop"),
]


async def test_answer_is_a_call(served: Served) -> None:
    answer = (await answer_to(served, "/v1/chat/completions", ASKED, *EVENTS)).json()
    choice = answer["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    (call,) = choice["message"]["tool_calls"]
    assert call["function"] == {"name": "high", "arguments": '{"hour": 12}'}
    assert (call["type"], call["id"][:5]) == ("function", "call_")


async def test_chunks_name_the_call_first_and_bring_arguments_as_they_are_verified(
    served: Served,
) -> None:
    body = {**ASKED, "stream": True}
    answer = await answer_to(served, "/v1/chat/completions", body, *EVENTS)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks_of(answer.text)]
    calls = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    assert {call["index"] for call in calls} == {0}
    assert calls[0]["function"] == {"name": "high", "arguments": ""}
    assert all(call.keys() == {"index", "function"} for call in calls[1:])
    assert "".join(call["function"]["arguments"] for call in calls) == '{"hour": 12}'
    last = chunks_of(answer.text)[-1]["choices"][0]
    assert (last["delta"], last["finish_reason"]) == ({}, "tool_calls")


async def test_model_is_told_of_the_tools_that_may_be_called(served: Served) -> None:
    chosen = {"type": "function", "function": {"name": "low"}}
    messages = [{"role": "system", "content": "Be brief."}, *CHAT["messages"]]
    body = {**ASKED, "messages": messages, "tool_choice": chosen}
    await answer_to(served, "/v1/chat/completions", body, Finished("stop"))
    (request,) = served.backend.requests.values()
    assert request.grammar == ToolCall(tools=[Tool(name="low", parameters=PARAMETERS)])
    assert request.messages is not None
    system, user = request.messages
    assert system.content.startswith("Be brief.\n\nYou can call")
    assert '"name":"low"' in system.content
    assert '"name":"high"' not in system.content
    assert user.content == "hi"


async def test_tools_that_may_not_be_called_are_not_told(served: Served) -> None:
    body = {**ASKED, "tool_choice": "none"}
    await answer_to(served, "/v1/chat/completions", body, Finished("stop"))
    (request,) = served.backend.requests.values()
    assert request.grammar is None
    assert len(request.messages or []) == 1
