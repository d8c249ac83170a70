"""Every row of the table of parameters, over real HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from openai.types import completion_create_params
from openai.types.chat import (
    ChatCompletionMessage,
    ChatCompletionStreamOptionsParam,
)
from openai.types.chat import (
    completion_create_params as chat_create_params,
)

from gateway.backends.base import Finished, Verified
from gateway.transports.openai.parameters import (
    CHAT as CHAT_PARAMETERS,
)
from gateway.transports.openai.parameters import (
    COMPLETIONS,
    MESSAGE,
    STREAM_OPTIONS,
    Fate,
    Parameter,
)
from protocol.events import Token
from protocol.requests import Call, Draft, JsonSchema, Message
from tests.server.gateways import hand_served
from tests.server.openai.asking import CHAT, COMPLETION, answer_to

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from _pytest.mark.structures import ParameterSet

    from tests.server.gateways import Served

# One server for all rows: what a row leaves behind is forgotten before the next one.
pytestmark = pytest.mark.asyncio(loop_scope="module")

ENDPOINTS = {
    "chat/completions": (CHAT, CHAT_PARAMETERS),
    "completions": (COMPLETION, COMPLETIONS),
}
EVENTS = [Verified("yes", tokens=[Token(1, 3, -0.5)]), Finished("stop")]
TOOLS = CHAT_PARAMETERS["tools"].example
COMPANIONS: dict[str, dict[str, Any]] = {
    "top_logprobs": {"logprobs": True},
    "stream_options": {"stream": True},
    "tool_choice": {"tools": TOOLS},
    "parallel_tool_calls": {"tools": TOOLS, "tool_choice": "required"},
}
"""What a parameter makes no sense without."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncGenerator[Served]:
    async with hand_served() as running:
        yield running


@pytest.fixture
def served(server: Served) -> Served:
    server.backend.requests.clear()
    return server


def rows(*fates: Fate) -> list[ParameterSet]:
    return [
        pytest.param(path, base, name, parameter, id=f"{path}-{name}")
        for path, (base, parameters) in ENDPOINTS.items()
        for name, parameter in parameters.items()
        if parameter.fate in fates
    ]


def bodies_with(base: dict[str, Any], name: str, value: object) -> dict[str, Any]:
    return {**base, **COMPANIONS.get(name, {}), name: value}


async def outcome(
    served: Served, path: str, body: dict[str, Any], *, choices: int = 1
) -> tuple[object, ...]:
    """What was generated for a request, and the answer, without ids and times."""
    served.backend.requests.clear()
    answer = await answer_to(served, f"/v1/{path}", body, *EVENTS, choices=choices)
    assert answer.status_code == 200, answer.text
    requests = list(served.backend.requests.values())
    seeded = [r.seed if body.get("seed") is not None else None for r in requests]
    told = [tuple((f, getattr(r, f)) for f in r.__struct_fields__ if f != "seed") for r in requests]
    if body.get("stream"):
        return told, seeded, answer.text.count("data: "), "usage" in answer.text
    shape = answer.json()
    return told, seeded, {k: v for k, v in shape.items() if k not in ("id", "created")}


@pytest.mark.parametrize(("path", "base", "name", "parameter"), rows(Fate.HONOURED))
async def test_honoured_parameter_changes_what_is_generated_or_told(
    served: Served, path: str, base: dict[str, Any], name: str, parameter: Parameter
) -> None:
    # Neither of the two does anything alone.
    alone = {} if name in ("tools", "tool_choice") else COMPANIONS.get(name, {})
    plain = {**base, **alone}
    body = bodies_with(base, name, parameter.example)
    choices = len(parameter.example) if name == "prompt" else 2 if name == "n" else 1  # type: ignore[arg-type]
    assert await outcome(served, path, body, choices=choices) != await outcome(served, path, plain)


@pytest.mark.parametrize(("path", "base", "name", "parameter"), rows(Fate.HARMLESS))
async def test_harmless_parameter_changes_nothing(
    served: Served, path: str, base: dict[str, Any], name: str, parameter: Parameter
) -> None:
    body = bodies_with(base, name, parameter.example)
    assert await outcome(served, path, body) == await outcome(served, path, base)


@pytest.mark.parametrize(("path", "base", "name", "parameter"), rows(Fate.REFUSED))
async def test_refused_parameter_is_named_and_passes_where_it_asks_for_nothing(
    served: Served, path: str, base: dict[str, Any], name: str, parameter: Parameter
) -> None:
    answer = await served.http.post(f"/v1/{path}", json=bodies_with(base, name, parameter.example))
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, name)
    assert (error["type"], error["code"]) == ("invalid_request_error", "unsupported_parameter")
    assert error["message"] == f"{name}: {parameter.note}"
    assert served.backend.requests == {}
    plain = await outcome(served, path, base)
    for neutral in (None, *parameter.neutral):
        assert await outcome(served, path, bodies_with(base, name, neutral)) == plain


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_null_says_what_leaving_it_out_says(served: Served, path: str) -> None:
    base, parameters = ENDPOINTS[path]
    nothing = dict.fromkeys(parameters)
    assert await outcome(served, path, {**nothing, **base}) == await outcome(served, path, base)


async def test_table_has_every_parameter_of_openais_own_library() -> None:
    chat = chat_create_params.CompletionCreateParamsStreaming.__annotations__
    assert chat.keys() <= CHAT_PARAMETERS.keys()
    completion = completion_create_params.CompletionCreateParamsStreaming.__annotations__
    assert completion.keys() <= COMPLETIONS.keys()
    assert ChatCompletionMessage.model_fields.keys() <= MESSAGE.keys()
    assert ChatCompletionStreamOptionsParam.__annotations__.keys() <= STREAM_OPTIONS.keys()


@pytest.mark.parametrize(
    ("path", "fields", "param", "hint"),
    [
        ("chat/completions", {"temprature": 1}, "temprature", "did you mean temperature?"),
        ("chat/completions", {"banana": 1}, "banana", "banana is unknown"),
        ("completions", {"max_token": 1}, "max_token", "did you mean max_tokens?"),
        ("completions", {"messages": []}, "messages", "messages is unknown"),
        ("chat/completions", {"policy": "retract"}, "policy", "policy is unknown"),
        ("chat/completions", {"wetink": {"polcy": "hold"}}, "wetink.polcy", "policy"),
        (
            "chat/completions",
            {"stream": True, "stream_options": {"continuous": 1}},
            "stream_options.continuous",
            "unknown",
        ),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": "x", "contents": "y"}]},
            "messages[0].contents",
            "did you mean content?",
        ),
    ],
)
async def test_unknown_field_is_refused_by_name(
    served: Served, path: str, fields: dict[str, Any], param: str, hint: str
) -> None:
    base = CHAT if path.startswith("chat") else COMPLETION
    answer = await served.http.post(f"/v1/{path}", json={**base, **fields})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param)
    assert error["code"] == "unknown_parameter"
    assert hint in error["message"]


VALUES: list[tuple[str, dict[str, Any], str]] = [
    ("chat/completions", {"max_completion_tokens": 0}, "max_completion_tokens"),
    ("chat/completions", {"max_completion_tokens": 2, "max_tokens": 2}, "max_tokens"),
    ("chat/completions", {"max_tokens": -1}, "max_tokens"),
    ("chat/completions", {"temperature": -1}, "temperature"),
    ("chat/completions", {"tool_choice": "required"}, "tool_choice"),
    (
        "chat/completions",
        {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "g"}}},
        "tool_choice",
    ),
    ("chat/completions", {"tools": [{"type": "code_interpreter"}]}, "tools[0].type"),
    (
        "chat/completions",
        {"tools": [{"type": "function", "function": {"name": "two words"}}]},
        "tools[0].function.name",
    ),
    ("chat/completions", {"response_format": {"type": "xml"}}, "response_format.type"),
    (
        "chat/completions",
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
        "response_format.json_schema.schema",
    ),
    ("chat/completions", {"n": 0}, "n"),
    ("chat/completions", {"n": 129}, "n"),
    ("chat/completions", {"messages": []}, "messages"),
    ("chat/completions", {"messages": ["hi"]}, "messages[0]"),
    ("chat/completions", {"messages": [{"role": "king", "content": ""}]}, "messages[0].role"),
    (
        "chat/completions",
        {"messages": [{"role": "assistant", "content": None}]},
        "messages[0].content",
    ),
    (
        "chat/completions",
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "messages[0].content[0].type",
    ),
    (
        "chat/completions",
        {"messages": [{"role": "assistant", "content": "x", "audio": {"id": "a"}}]},
        "messages[0].audio",
    ),
    ("chat/completions", {"stream_options": {"include_usage": True}}, "stream_options"),
    ("chat/completions", {"wetink": {"policy": "retract"}}, "wetink.policy"),
    ("chat/completions", {"stream": True, "wetink": {"policy": "nonsense"}}, "policy"),
    ("completions", {"prompt": [1, 2]}, "prompt[0]"),
    ("completions", {"prompt": []}, "prompt"),
    ("completions", {"prompt": ["a", "b"], "n": 65}, "n"),
    ("completions", {"logprobs": 21}, "logprobs"),
    ("chat/completions", {"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ("chat/completions", {"top_logprobs": 2}, "top_logprobs"),
    ("completions", {"model": "nope"}, "model"),
]


@pytest.mark.parametrize(("path", "fields", "param"), VALUES)
async def test_value_that_cannot_be_is_refused_by_name(
    served: Served, path: str, fields: dict[str, Any], param: str
) -> None:
    base = CHAT if path.startswith("chat") else COMPLETION
    answer = await served.http.post(f"/v1/{path}", json={**base, **fields})
    error = answer.json()["error"]
    assert 400 <= answer.status_code < 500
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert served.backend.requests == {}


async def test_chat_request_is_translated_whole(served: Served) -> None:
    body: dict[str, Any] = {
        "messages": [
            {
                "role": "developer",
                "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "kind."}],
            },
            {"role": "user", "content": "hi", "name": "ada"},
            {
                "role": "assistant",
                "content": None,
                "refusal": None,
                "tool_calls": [
                    {
                        "id": "c1",
                        "type": "function",
                        "function": {"name": "tide", "arguments": '{"at": "noon"}'},
                    }
                ],
            },
            {"role": "tool", "content": "high", "tool_call_id": "c1"},
        ],
        "max_completion_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 11,
        "stop": ["a", "b"],
        "frequency_penalty": 1,
        "presence_penalty": -1,
        "logit_bias": {"42": 5},
        "prediction": {"type": "content", "content": [{"type": "text", "text": "maybe this"}]},
        "wetink": {"draft": {"length": 0}},
    }
    await answer_to(served, "/v1/chat/completions", body, Finished("stop"))
    (request,) = served.backend.requests.values()
    assert request.messages == [
        Message("developer", "Be kind."),
        Message("user", "hi"),
        Message("assistant", "", [Call("tide", '{"at": "noon"}', "c1")]),
        Message("tool", "high", tool_call_id="c1"),
    ]
    assert (request.max_tokens, request.temperature, request.top_p) == (7, 0.5, 0.9)
    assert (request.seed, request.stop) == (11, ["a", "b"])
    assert (request.frequency_penalty, request.presence_penalty) == (1.0, -1.0)
    assert (request.logit_bias, request.prediction) == ({"42": 5.0}, "maybe this")
    assert request.draft == Draft(length=0)


async def test_json_object_is_any_object(served: Served) -> None:
    body = {**CHAT, "response_format": {"type": "json_object"}}
    await answer_to(served, "/v1/chat/completions", body, Finished("stop"))
    (request,) = served.backend.requests.values()
    assert request.grammar == JsonSchema(schema={"type": "object"})


async def test_answer_may_take_the_rest_of_the_context_where_no_limit_is_asked(
    served: Served,
) -> None:
    await answer_to(served, "/v1/chat/completions", CHAT, Finished("stop"))
    (request,) = served.backend.requests.values()
    assert request.max_tokens == 100


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("completions", '"prompt": "x"'),
        ("chat/completions", '"messages": [{"role": "user", "content": "hi"}]'),
    ],
)
async def test_name_that_is_given_twice_is_refused(served: Served, path: str, text: str) -> None:
    body = f'{{{text}, "metadata": {{"a": 1, "a": 2}}}}'
    answer = await served.http.post(f"/v1/{path}", content=body)
    assert answer.status_code == 400
    assert (answer.json()["error"]["param"], served.backend.requests) == ("a", {})
