"""The whole of Wetink with the embedded model: engine process, gateway, real HTTP and WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
from typing import TYPE_CHECKING, Any

import httpx
import jsonschema
import pytest
import pytest_asyncio

import wetink
from gateway.backends.local import LocalBackend
from gateway.config import EngineConfig, GatewayConfig
from gateway.server import running_server
from protocol.events import Commit, Finish, Part, Retract, ServerEvent
from tests.server.openai.page import examples

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from wetink.client import TransportName

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.asyncio(loop_scope="module"),
]

PROMPT = "Repeat this three times: the quick brown fox jumps over the lazy dog."
POLICIES: tuple[tuple[str | wetink.StreamRetract | wetink.Chunk, TransportName], ...] = (
    ("hold", "sse"),
    ("retract", "ws"),
    ("chunk:sentence", "sse"),
    (wetink.Chunk(unit="word", tail=True), "ws"),
    (wetink.StreamRetract(max_tail=5, grapheme_safe=True), "sse"),
)


@pytest.fixture(scope="module")
def backend() -> LocalBackend:
    return LocalBackend(EngineConfig(adaptive_draft=False, draft_length=6))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(backend: LocalBackend) -> AsyncGenerator[str]:
    config = GatewayConfig.load(None, {"server.port": 0})
    async with running_server(config, backend) as base:
        yield base


@pytest_asyncio.fixture(loop_scope="module")
async def url(server: str) -> str:
    """Of the server, once its engine runs (again)."""
    async with httpx.AsyncClient(base_url=server) as client:
        # Readiness is polled, as an operator's probe does.
        while (await client.get("/readyz")).status_code != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    return server


async def read(stream: wetink.Stream) -> tuple[str, list[ServerEvent]]:
    events: list[ServerEvent] = []
    async with stream as reading:
        events += [event async for event in reading]
    assert reading.complete
    return reading.view.committed, events


def removed(events: list[ServerEvent]) -> int:
    """Units of shown text that events took back, with their explanations."""
    total = 0
    for event in events:
        match event:
            case Retract():
                total += event.n
            case Commit(retract=retraction) if retraction is not None:
                total += retraction.n
            case _:
                pass
    return total


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.3])
async def test_attachments_end_with_same_text_under_every_policy(
    url: str, temperature: float
) -> None:
    messages = [{"role": "user", "content": PROMPT}]
    async with wetink.stream(
        url, messages=messages, temperature=temperature, seed=7, max_tokens=48, policy="retract"
    ) as first:
        others = [
            asyncio.create_task(read(wetink.attach(url, first.id, policy=p, transport=t)))
            for p, t in POLICIES
        ]
        events = [event async for event in first]
    results = [(first.view.committed, events), *[await other for other in others]]
    texts = {text for text, _ in results}
    assert len(texts) == 1
    assert first.usage is not None
    assert first.usage.drafted_tokens > 0
    assert removed(results[1][1]) == 0, "hold never shows what it might take back"
    assert removed(results[3][1]) == 0, "chunk without tail neither"
    again, _ = await read(
        wetink.stream(
            url,
            messages=messages,
            temperature=temperature,
            seed=7,
            max_tokens=48,
            policy="hold",
            draft=wetink.Draft(length=0),
        )
    )
    assert texts == {again}, "speculation changes nothing"


async def test_stream_continues_with_same_text_after_engine_is_killed(
    url: str, backend: LocalBackend
) -> None:
    async def generate(kill_after: int | None) -> tuple[str, list[ServerEvent]]:
        events: list[ServerEvent] = []
        stream = wetink.stream(
            url,
            messages=[{"role": "user", "content": PROMPT}],
            temperature=0.7,
            seed=11,
            max_tokens=60,
            ignore_eos=True,
            policy="retract",
        )
        async with stream as reading:
            async for event in reading:
                events.append(event)
                commits = sum(isinstance(e, Commit) for e in events)
                if kill_after is not None and commits == kill_after:
                    kill_after = None
                    assert backend.engine_pid is not None
                    os.kill(backend.engine_pid, signal.SIGKILL)
        assert reading.complete
        return reading.view.committed, events

    whole, _ = await generate(None)
    first_engine = backend.engine_pid
    text, events = await generate(3)
    assert text == whole
    assert backend.engine_pid != first_engine
    restarts = [e for e in events if isinstance(e, Retract) and e.cause == "engine_restart"]
    assert len(restarts) <= 1


async def test_openai_endpoint_gives_the_committed_text(url: str) -> None:
    messages = [{"role": "user", "content": PROMPT}]
    body = {
        "model": "smollm2-135m-instruct",
        "messages": messages,
        "temperature": 0,
        "seed": 1,
        "max_tokens": 24,
    }
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        answer = (await client.post("/v1/chat/completions", json=body)).json()
    async with wetink.stream(
        url, messages=messages, temperature=0, seed=1, max_tokens=24, policy="hold"
    ) as reading:
        text = "".join([piece async for piece in reading.committed()])
    assert answer["choices"][0]["message"]["content"] == text
    assert reading.usage is not None
    assert answer["usage"]["completion_tokens"] == reading.usage.completion_tokens > 0


TIDE = {
    "type": "object",
    "properties": {"high": {"type": "boolean"}, "hour": {"type": "integer", "maximum": 23}},
    "required": ["high", "hour"],
    "additionalProperties": False,
}


async def test_text_follows_a_grammar_under_every_policy_and_draft_length(url: str) -> None:
    asked: list[dict[str, Any]] = [
        {"policy": "hold", "draft": wetink.Draft(length=0)},
        {"policy": "retract"},
        {"policy": "chunk:word", "draft": wetink.Draft(length=2)},
    ]
    texts = [
        (
            await read(
                wetink.stream(
                    url,
                    messages=[{"role": "user", "content": "When is high tide?"}],
                    grammar={"kind": "json_schema", "schema": TIDE},
                    temperature=1.0,
                    seed=2,
                    **each,
                )
            )
        )[0]
        for each in asked
    ]
    assert len(set(texts)) == 1
    jsonschema.validate(json.loads(texts[0]), TIDE)


async def test_openai_answer_follows_its_schema(url: str) -> None:
    def body(schema: dict[str, Any]) -> dict[str, Any]:
        return {
            "messages": [{"role": "user", "content": "When is high tide?"}],
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "tide", "strict": True, "schema": schema},
            },
        }

    broken = {"type": "object", "properties": {"high": {"type": "banana"}}}
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        answer = (await client.post("/v1/chat/completions", json=body(TIDE))).json()
        refused = await client.post("/v1/chat/completions", json=body(broken))
    jsonschema.validate(json.loads(answer["choices"][0]["message"]["content"]), TIDE)
    assert refused.status_code == 400
    path = "response_format.json_schema.schema.properties.high"
    assert refused.json()["error"]["param"] == path
    assert refused.json()["error"]["message"].startswith(f"{path}: ")


async def test_call_of_a_tool_is_a_part_of_its_own(url: str) -> None:
    tools = [{"name": "sound_horn", "parameters": TIDE}]
    stream = wetink.stream(
        url,
        messages=[{"role": "user", "content": "When is high tide?"}],
        tools=tools,
        tool_choice="required",
        parallel_tool_calls=False,
        seed=2,
        policy="retract",
    )
    async with stream as reading:
        events = [event async for event in reading]
    part = next(event for event in events if isinstance(event, Part))
    assert (part.kind, part.name) == ("tool_call", "sound_horn")
    jsonschema.validate(
        json.loads("".join(event.text for event in events if isinstance(event, Commit))), TIDE
    )
    assert isinstance(events[-1], Finish)
    assert events[-1].reason == "tool_calls"


async def test_python_examples_of_the_openai_page_run(url: str) -> None:
    written = {name: code for name, code in examples(url).items() if name.endswith(".py")}
    said = {name: await asyncio.to_thread(run, code) for name, code in written.items()}
    assert said["chat.py"].strip()
    assert said["tool.py"].startswith('sound_horn {"seconds": ')
    assert said["schema.py"].startswith("name=")
    assert said["responses.py"].strip()
    assert said["stream.py"].strip().endswith(" tokens")
    events = said["tentative.py"].splitlines()
    assert any(line.startswith("drafted at ") for line in events)
    assert any(line.startswith("committed at 0: ") for line in events)


def run(code: str) -> str:
    """What an example prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    return printed.getvalue()
