"""A gateway in front of OpenAI-compatible servers: Wetink itself, and one that fails."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from prometheus_client.parser import text_string_to_metric_families

from gateway import upstreams
from gateway.backends.openai import OpenAIBackend
from gateway.backends.routes import Routes
from gateway.backends.scripted import BUILT_IN_TRACES, ScriptedBackend, load_traces
from gateway.config.upstreams import UpstreamConfig
from protocol.events import Commit, Error, Finish
from tests.server.gateways import Reader, serving
from tests.upstreams.fake import LENGTH, Fault, Kind, fake_upstream, whole_text

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import httpx
    import pytest

SPEED = 1000.0
EVENTS = {"Accept": "text/event-stream"}


def scripted() -> ScriptedBackend:
    return ScriptedBackend(load_traces(BUILT_IN_TRACES), speed=SPEED)


@asynccontextmanager
async def in_front_of(
    url: str, **settings: object
) -> AsyncGenerator[tuple[str, httpx.AsyncClient]]:
    """A gateway, once it is ready."""
    config = UpstreamConfig(url=url, **settings)  # type: ignore[arg-type]
    async with serving(Routes([OpenAIBackend(config)])) as (gateway, http):
        while (await http.get("/readyz")).status_code != 200:
            pass
        yield gateway, http


async def read(http: httpx.AsyncClient, **request: object) -> tuple[str, Finish | Error]:
    """Committed text of one stream, and its end."""
    body = {"prompt": "Say it?", "policy": "hold", **request}
    async with http.stream("POST", "/v1/streams", json=body, headers=EVENTS) as response:
        assert response.status_code == 200, await response.aread()
        framed = await Reader(response).to_end()
    end = framed[-1].event
    assert isinstance(end, Finish | Error)
    return "".join(each.event.text for each in framed if isinstance(each.event, Commit)), end


async def test_wetink_in_front_of_wetink_passes_text_and_usage_on() -> None:
    async with (
        serving(scripted()) as (url, inner),
        in_front_of(f"{url}/v1") as (_, outer),
    ):
        direct, end = await read(inner, model="talk")
        passed, passed_end = await read(outer, model="talk")
        assert passed == direct
        assert isinstance(end, Finish) and isinstance(passed_end, Finish)
        assert passed_end.digest == end.digest
        assert passed_end.usage == end.usage
        chat = {"model": "talk", "messages": [{"role": "user", "content": "Tell me"}]}
        answers = [
            (await http.post("/v1/chat/completions", json=chat)).json() for http in (inner, outer)
        ]
        assert answers[0]["choices"] == answers[1]["choices"]
        assert answers[0]["usage"] == answers[1]["usage"]


TIDE = {
    "type": "function",
    "function": {"name": "tide", "description": "When?", "parameters": {"type": "object"}},
}
CALLED: list[dict[str, Any]] = [
    {"reasoning_content": "A tide"},
    {"reasoning_content": " is asked for."},
    {"content": "Not <think> nor <tool_call>: "},
    *(
        {"tool_calls": [{"index": index, "function": function}]}
        for index, function in (
            (0, {"name": "tide", "arguments": ""}),
            (0, {"arguments": '{"at": '}),
            (0, {"arguments": '"</tool_call>"}'}),
            (1, {"name": "tide", "arguments": "{}"}),
        )
    ),
]
"""With marks in it that a model of the gateway's own would mean something by."""


async def test_upstream_is_told_of_tools_and_earlier_calls_and_its_parts_are_passed_on() -> None:
    earlier = {"id": "c1", "type": "function", "function": {"name": "tide", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "When?"},
        {"role": "assistant", "content": None, "tool_calls": [earlier]},
        {"role": "tool", "content": "at noon", "tool_call_id": "c1"},
    ]
    body = {
        "messages": messages,
        "tools": [TIDE],
        "tool_choice": "required",
        "parallel_tool_calls": False,
    }
    async with fake_upstream() as upstream, in_front_of(upstream.url) as (_, http):
        upstream.deltas = CALLED
        whole = (await http.post("/v1/chat/completions", json=body)).json()
        sent = await http.post("/v1/chat/completions", json={**body, "stream": True})
    for asked in upstream.bodies:
        assert asked["tools"] == [TIDE]
        assert (asked["tool_choice"], asked["parallel_tool_calls"]) == ("required", False)
        assert asked["messages"][1:] == [{**messages[1], "content": ""}, messages[2]]
    (choice,) = whole["choices"]
    said = choice["message"]
    assert said["reasoning_content"] == "A tide is asked for."
    assert said["content"] == "Not <think> nor <tool_call>: "
    made = [
        (call["function"]["name"], call["function"]["arguments"]) for call in said["tool_calls"]
    ]
    assert made == [("tide", '{"at": "</tool_call>"}'), ("tide", "{}")]
    assert choice["finish_reason"] == "tool_calls"
    assert whole["usage"]["completion_tokens_details"]["reasoning_tokens"] == 2
    chunks = [
        json.loads(line.removeprefix("data: "))
        for line in sent.text.splitlines()
        if line.startswith("data: {")
    ]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    reasoning = "".join(delta.get("reasoning_content", "") for delta in deltas)
    text = "".join(delta.get("content", "") for delta in deltas)
    assert (reasoning, text) == (said["reasoning_content"], said["content"])
    calls = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    assert [
        "".join(call["function"].get("arguments", "") for call in calls if call["index"] == index)
        for index in (0, 1)
    ] == [arguments for _, arguments in made]


async def test_gateway_lists_the_models_of_its_upstream_under_the_names_it_gives_them() -> None:
    async with (
        serving(scripted()) as (url, _),
        in_front_of(f"{url}/v1", models={"small-talk": "talk"}) as (_, http),
    ):
        listed = (await http.get("/v1/models")).json()["data"]
        assert [(model["id"], model["context_length"]) for model in listed] == [
            ("small-talk", 4096)
        ]
        text, _ = await read(http, model="small-talk")
        assert text


async def test_reader_sees_an_error_and_no_finish_where_nothing_can_go_on() -> None:
    faults: deque[Fault | None] = deque([Fault(Kind.RESET, LENGTH // 2)])
    async with (
        fake_upstream(faults) as fake,
        in_front_of(fake.url, continuation=[]) as (_, http),
    ):
        text, end = await read(http, seed=3)
        assert isinstance(end, Error)
        assert (end.code, end.retryable, end.ended) == ("engine_failed", True, True)
        assert whole_text(3).startswith(text)
        text, end = await read(http, seed=3)
        assert isinstance(end, Finish) and text == whole_text(3)


async def test_operator_sees_how_upstreams_are(capsys: pytest.CaptureFixture[str]) -> None:
    faults: deque[Fault | None] = deque([Fault(Kind.ERROR_500, 0)])
    async with fake_upstream(faults) as fake, in_front_of(fake.url) as (gateway, http):
        await read(http, seed=1)
        (state,) = (await http.get("/v1/upstreams")).json()["upstreams"]
        (server,) = state["servers"]
        assert server["url"] == fake.url
        assert (server["requests"], server["failures"]) == (2, {"engine_failed": 1})
        assert "a worker died" in server["last_failure"]
        exposition = (await http.get("/metrics")).text
        status = await asyncio.to_thread(upstreams.run, ["--url", gateway])
    samples = {
        sample.name: sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
        if sample.labels.get("server") == fake.url
    }
    assert samples["wetink_upstream_requests_total"] == 2
    assert samples["wetink_upstream_failures_total"] == 1
    assert samples["wetink_upstream_up"] == 1
    assert status == 0
    said = capsys.readouterr().out
    assert "a worker died" in said and "2 asked, 1 failed" in said


async def test_gateway_without_upstreams_says_so() -> None:
    async with serving(scripted()) as (_, http):
        assert (await http.get("/v1/upstreams")).json() == {"upstreams": []}


async def test_reader_is_told_that_no_upstream_can_be_asked_and_not_where_it_is() -> None:
    async with fake_upstream() as fake, in_front_of(fake.url, name="big", rest_s=60) as (_, http):
        await fake.close()
        answers = [await http.post("/v1/streams", json={"prompt": "x"}) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [503, 503]
        assert "upstream big cannot be reached" in answers[0].json()["error"]["message"]
        assert "no upstream can be asked" in answers[1].json()["error"]["message"]
        assert not any("127.0.0.1" in answer.text for answer in answers)
        assert (await http.get("/readyz")).status_code == 503
