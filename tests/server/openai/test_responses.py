"""`/v1/responses`, read by OpenAI's own library."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest
import pytest_asyncio
from openai import AsyncOpenAI
from openai.types.responses import ResponseFunctionToolCall
from openai.types.responses.response_create_params import ResponseCreateParamsBase

from gateway.backends.base import Failed, Finished, TokenCounts, Verified
from gateway.transports.openai.parameters import RESPONSES, Fate
from protocol.events import Token
from protocol.requests import Call, JsonSchema, Message, Tool
from tests.server.gateways import PATIENCE_S, hand_served

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from gateway.backends.base import BackendEvent
    from gateway.transports.openai.parameters import Parameter
    from tests.server.gateways import Served

# One server for all: what a test leaves behind is forgotten before the next one.
pytestmark = pytest.mark.asyncio(loop_scope="module")

COUNTS = TokenCounts(prompt=3, cached_prompt=1, completion=5)
TIDE: dict[str, Any] = {"type": "function", "name": "tide", "parameters": {"type": "object"}}
THINKS_AND_CALLS: list[BackendEvent] = [
    Verified("<think>\nHm."),
    Verified("\n</think>\n\nLook: <tool_call>"),
    Verified('{"name": "tide", "arguments": {"at"'),
    Verified(": 7}}</tool_call>"),
    Finished("stop", COUNTS),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncGenerator[Served]:
    async with hand_served() as running:
        yield running


@pytest.fixture
def served(server: Served) -> Served:
    server.backend.requests.clear()
    return server


def client_of(served: Served) -> AsyncOpenAI:
    return AsyncOpenAI(
        base_url=f"{served.url}/v1",
        api_key="none",
        http_client=cast("Any", served.http),
        max_retries=0,
    )


async def asked(served: Served, *events: BackendEvent, **fields: Any) -> Any:
    """The response, after its stream has said `events`."""
    create: Any = client_of(served).responses.create
    creating: asyncio.Task[Any] = asyncio.create_task(create(**fields))
    stream = await asyncio.wait_for(served.backend.admitted.get(), PATIENCE_S)
    served.backend.say(*events, stream=stream)
    return await creating


async def test_response_has_its_text_and_usage(served: Served) -> None:
    response = await asked(
        served,
        Verified("Ships "),
        Verified("sleep."),
        Finished("stop", COUNTS),
        input="hi",
        instructions="Be brief.",
        text={"format": {"type": "json_object"}},
        max_output_tokens=9,
    )
    assert (response.status, response.output_text) == ("completed", "Ships sleep.")
    assert (response.usage.input_tokens, response.usage.output_tokens) == (3, 5)
    assert response.usage.input_tokens_details.cached_tokens == 1
    (request,) = served.backend.requests.values()
    assert request.messages == [Message("system", "Be brief."), Message("user", "hi")]
    assert request.grammar == JsonSchema(schema={"type": "object"})
    assert request.max_tokens == 9


async def test_events_of_a_response_make_up_its_items(served: Served) -> None:
    stream = await asked(
        served, *THINKS_AND_CALLS, input="hi", tools=[TIDE], stream=True, model="hand"
    )
    events = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:2]] == ["response.created", "response.in_progress"]
    assert events[-1].type == "response.completed"
    reasoning, message, call = events[-1].response.output
    assert [part.text for part in reasoning.content] == ["Hm.\n"]
    assert [part.text for part in message.content] == ["Look: "]
    assert (call.name, call.arguments) == ("tide", '{"at": 7}')
    for kind, text in (
        ("response.reasoning_text", "Hm.\n"),
        ("response.output_text", "Look: "),
        ("response.function_call_arguments", '{"at": 7}'),
    ):
        said = [event.delta for event in events if event.type == f"{kind}.delta"]
        (done,) = [event for event in events if event.type == f"{kind}.done"]
        assert "".join(said) == text == getattr(done, "text", getattr(done, "arguments", None))
    added = [event.item for event in events if event.type == "response.output_item.added"]
    done = [event.item for event in events if event.type == "response.output_item.done"]
    assert [item.id for item in added] == [item.id for item in done]
    assert done == events[-1].response.output


async def test_conversation_goes_on_from_an_earlier_response(served: Served) -> None:
    first = await asked(served, *THINKS_AND_CALLS, input="hi", tools=[TIDE])
    call = first.output[-1]
    assert isinstance(call, ResponseFunctionToolCall)
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "high"}
    second = await asked(
        served,
        Verified("It is high."),
        Finished("stop"),
        input=[result],
        previous_response_id=first.id,
    )
    assert second.previous_response_id == first.id
    assert list(served.backend.requests.values())[-1].messages == [
        Message("user", "hi"),
        Message("assistant", "Look: ", [Call("tide", '{"at": 7}', call.call_id)]),
        Message("tool", "high", tool_call_id=call.call_id),
    ]


async def test_items_of_earlier_answers_are_told_as_the_messages_they_were(served: Served) -> None:
    first = await asked(served, *THINKS_AND_CALLS, input="hi", tools=[TIDE], store=False)
    items = [item.model_dump() for item in first.output]
    await asked(served, Finished("stop"), input=[{"role": "user", "content": "hi"}, *items])
    user, assistant = list(served.backend.requests.values())[-1].messages or []
    assert user == Message("user", "hi")
    call = first.output[-1].call_id
    assert assistant == Message("assistant", "Look: ", [Call("tide", '{"at": 7}', call)])


async def test_response_that_is_not_stored_cannot_be_gone_on_from(served: Served) -> None:
    first = await asked(served, Verified("x"), Finished("stop"), input="hi", store=False)
    body = {"input": "more", "previous_response_id": first.id}
    answer = await served.http.post("/v1/responses", json=body)
    assert answer.status_code == 404
    assert answer.json()["error"]["param"] == "previous_response_id"


async def test_response_that_met_its_limit_is_incomplete(served: Served) -> None:
    response = await asked(served, Verified("Sh"), Finished("length"), input="hi")
    assert (response.status, response.incomplete_details.reason) == (
        "incomplete",
        "max_output_tokens",
    )


async def test_call_that_the_model_broke_off_is_incomplete(served: Served) -> None:
    *begun, _, _ = THINKS_AND_CALLS
    response = await asked(served, *begun, Finished("stop", COUNTS), input="hi", tools=[TIDE])
    assert [item.status for item in response.output] == ["completed", "completed", "incomplete"]
    assert (response.status, response.incomplete_details) == ("incomplete", None)


async def test_usage_of_a_response_counts_the_tokens_of_its_reasoning(served: Served) -> None:
    response = await asked(
        served,
        Verified("<think>\nHm.", tokens=[Token(1, 8), Token(2, 2), Token(3, 1)]),
        Verified("\n</think>\n\nLook.", tokens=[Token(4, 9), Token(5, 6), Token(6, 1)]),
        Finished("stop", COUNTS),
        input="hi",
    )
    assert response.usage.output_tokens_details.reasoning_tokens == 3


async def test_response_that_failed_says_so(served: Served) -> None:
    events: list[BackendEvent] = [Verified("Sh"), Failed("engine_failed", "gone")]
    response = await asked(served, *events, input="hi")
    assert (response.status, response.error.message) == ("failed", "gone")


async def test_function_that_has_to_be_called_is_required(served: Served) -> None:
    choice = {"type": "function", "name": "tide"}
    other = {**TIDE, "name": "wind"}
    await asked(served, Finished("stop"), input="hi", tools=[TIDE, other], tool_choice=choice)
    (request,) = served.backend.requests.values()
    assert (request.tools, request.tool_choice) == ([Tool(name="tide")], "required")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [{"type": "computer_call"}]}, "input[0].type"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "input[0].content[0].type",
        ),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"banana": 1}, "banana"),
        ({"temperature": 99}, "temperature"),
        ({"tool_choice": "required"}, "tool_choice"),
    ],
)
async def test_value_that_cannot_be_is_refused_by_name(
    served: Served, fields: dict[str, Any], param: str
) -> None:
    answer = await served.http.post("/v1/responses", json={"input": "hi", **fields})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(("name", "parameter"), RESPONSES.items())
async def test_row_of_the_table_is_true(served: Served, name: str, parameter: Parameter) -> None:
    body = {"input": "hi", name: parameter.example}
    if parameter.fate is Fate.REFUSED:
        answer = await served.http.post("/v1/responses", json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)
        for value in (None, *parameter.neutral):
            await asked(served, Finished("stop"), input="hi", extra_body={name: value})
    elif parameter.fate is Fate.HARMLESS or name in ("store", "max_output_tokens", "temperature"):
        await asked(served, Finished("stop"), input="hi", extra_body={name: parameter.example})


async def test_table_has_every_field_that_the_library_knows() -> None:
    known = set(ResponseCreateParamsBase.__annotations__) | {"stream"}
    assert known == set(RESPONSES)
