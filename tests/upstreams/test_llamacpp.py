"""In front of llama.cpp's own server: `make test-upstreams`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from gateway.backends.base import Finished, PartBegins, Verified
from tests.upstreams.llamacpp import llama_server
from tests.upstreams.reading import Reading, running, said

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from gateway.backends.openai import OpenAIBackend

pytestmark = pytest.mark.upstreams

SLOW: dict[str, Any] = {"stall_s": 60.0, "first_byte_s": 120.0}
STORY = "Once upon a time there was a lighthouse"
GREEDY: dict[str, Any] = {"temperature": 0.0, "max_tokens": 60}


@pytest.fixture
async def backend() -> AsyncGenerator[OpenAIBackend]:
    async with llama_server("one") as (url, _), running(url, **SLOW) as backend:
        yield backend


async def test_llama_cpp_is_understood(backend: OpenAIBackend) -> None:
    (state,) = backend.upstreams()
    (model,) = backend.models()
    assert state.dialect == "llama.cpp"
    assert model.context_length > 0
    chat = await said(backend, 7, chat=True, model=model.id, **GREEDY)
    assert isinstance(chat.end, Finished) and chat.end.reason in ("stop", "length")
    assert chat.text
    counts = chat.end.counts
    assert counts.prompt > 0 and 0 < counts.completion <= 60
    again = await said(backend, 7, chat=True, model=model.id, **GREEDY)
    assert again.text == chat.text


async def test_llama_cpp_says_which_tokens_its_text_is_made_of(backend: OpenAIBackend) -> None:
    name = backend.models()[0].id
    reading = await said(backend, 7, chat=True, model=name, include=["logprobs"], **GREEDY)
    verified = [event for event in reading.events if isinstance(event, Verified)]
    tokens = [token for event in verified for token in event.tokens]
    assert sum(token.n for token in tokens) == len(reading.text)
    assert all(token.logprob is not None and token.logprob <= 0 for token in tokens)


async def test_llama_cpp_refuses_by_our_names(backend: OpenAIBackend) -> None:
    name = backend.models()[0].id
    refused = (await said(backend, 7, model=name, prompt="word " * 9000)).refused
    assert refused is not None and refused.code == "context_exceeded", refused


async def test_llama_cpp_follows_a_schema_and_stops_where_told(backend: OpenAIBackend) -> None:
    name = backend.models()[0].id
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    grammar = {"kind": "json_schema", "schema": schema}
    reading = await said(backend, 7, chat=True, model=name, grammar=grammar, **GREEDY)
    assert reading.text.lstrip().startswith("{")
    assert not any(isinstance(event, PartBegins) for event in reading.events)


@pytest.mark.parametrize("continuation", [["prefix"], ["repeat"]])
@pytest.mark.parametrize("chat", [False, True])
async def test_stream_goes_on_at_another_llama_cpp_when_one_is_killed(
    continuation: list[str], chat: bool
) -> None:
    asked: dict[str, Any] = GREEDY if chat else {"prompt": STORY, **GREEDY}
    async with (
        llama_server("one") as (one, first),
        llama_server("two") as (two, second),
        running(one, two, continuation=continuation, **SLOW) as backend,
    ):
        name = backend.models()[0].id
        whole = await said(backend, 7, chat=chat, model=name, **asked)
        reading = Reading()
        stream = asyncio.create_task(
            said(backend, 7, chat=chat, model=name, reading=reading, **asked)
        )
        await reading.begun.wait()
        serving = [each.outstanding for each in backend.upstreams()[0].servers]
        (first if serving[0] else second).kill()
        ended = await stream
        assert isinstance(ended.end, Finished), ended.end
        assert backend.continued[continuation[0]] == 1
        if continuation == ["repeat"]:
            assert ended.text == whole.text
        else:  # what it is continued with need not be cut into the same tokens
            assert len(ended.text) > len(whole.text) / 2
