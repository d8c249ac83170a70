"""Calls of tools, in OpenAI's shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.backends.base import Drafted, Finished, Verified
from protocol.requests import JsonSchema, Tool
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
    Drafted('<tool_call>{"name": "low"'),
    Verified('<tool_call>{"name": "high", "argu', cause="draft_rejected"),
    Verified('ments": {"hour": 1'),
    Verified("2}}</tool_call>"),
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


async def test_model_that_decides_thinks_says_something_and_calls_twice(served: Served) -> None:
    """A scripted trace: the models in the tests are too small to decide anything."""
    body = {**CHAT, "tools": TOOLS, "stream": True}
    events = [
        Verified("<think>\nWhich"),
        Verified(" tide?</thi"),
        Verified("nk>\n\nI look.<tool"),
        Verified('_call>{"name": "high", "arguments": {}}</tool_call>\n<tool_call>\n{"name": '),
        Verified('"low", "arguments": {"hour": 7}}</tool_call>'),
        Finished("stop"),
    ]
    answer = await answer_to(served, "/v1/chat/completions", body, *events)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks_of(answer.text)]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "Which tide?"
    assert "".join(delta.get("content", "") for delta in deltas) == "I look."
    calls = [call for delta in deltas for call in delta.get("tool_calls", [])]
    named = [(call["index"], call["function"]["name"]) for call in calls if "id" in call]
    assert named == [(0, "high"), (1, "low")]
    assert len({call["id"] for call in calls if "id" in call}) == 2
    told = "".join(call["function"]["arguments"] for call in calls if call["index"] == 1)
    assert told == '{"hour": 7}'
    assert chunks_of(answer.text)[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_model_that_decides_may_answer_with_text(served: Served) -> None:
    body = {**CHAT, "tools": TOOLS}
    events = [Verified("A <tool is no "), Verified("<tool_call>."), Finished("stop")]
    answer = (await answer_to(served, "/v1/chat/completions", body, *events)).json()
    choice = answer["choices"][0]
    assert choice["message"]["content"] == "A <tool is no <tool_call>."
    assert "tool_calls" not in choice["message"]
    assert choice["finish_reason"] == "stop"


async def test_tools_reach_the_backend_with_what_may_be_called(served: Served) -> None:
    chosen = {"type": "function", "function": {"name": "low"}}
    body = {**ASKED, "tool_choice": chosen, "parallel_tool_calls": False}
    await answer_to(served, "/v1/chat/completions", body, Finished("stop"))
    (request,) = served.backend.requests.values()
    low = Tool(name="low", description="The tide.", parameters=PARAMETERS)
    assert request.tools == [low]
    assert (request.tool_choice, request.parallel_tool_calls) == ("required", False)


async def test_answer_may_be_a_call_or_follow_a_schema(served: Served) -> None:
    body = {**CHAT, "tools": TOOLS, "response_format": {"type": "json_object"}}
    await answer_to(served, "/v1/chat/completions", body, Finished("stop"))
    (request,) = served.backend.requests.values()
    assert [tool.name for tool in request.tools] == ["high", "low"]
    assert request.grammar == JsonSchema(schema={"type": "object"})


async def test_tools_that_may_not_be_called_are_not_told(served: Served) -> None:
    body = {**ASKED, "tool_choice": "none"}
    await answer_to(served, "/v1/chat/completions", body, Finished("stop"))
    (request,) = served.backend.requests.values()
    assert (request.grammar, request.tools) == (None, [])
