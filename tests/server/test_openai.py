"""OpenAI's interface over real HTTP."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from gateway.backends.base import Drafted, Failed, Finished, PartBegins, Verified
from protocol.requests import Message
from tests.server.gateways import PATIENCE_S, hand_served
from tests.unit.gateway.doubles import COUNTS, SMALL_TALK, SMALL_TALK_TEXT

if TYPE_CHECKING:
    import httpx

    from tests.server.gateways import Served

CHAT = {"messages": [{"role": "user", "content": "hi"}]}
USAGE = {
    "prompt_tokens": 2,
    "completion_tokens": 8,
    "total_tokens": 10,
    "prompt_tokens_details": {"cached_tokens": 1},
    "completion_tokens_details": {
        "accepted_prediction_tokens": 6,
        "rejected_prediction_tokens": 4,
    },
}


async def answer_to(
    served: Served, path: str, body: dict[str, Any], *events: Any
) -> httpx.Response:
    """The whole answer of a generation that says `events`."""
    asking = asyncio.create_task(served.http.post(path, json=body))
    await asyncio.wait_for(served.backend.admitted.get(), PATIENCE_S)
    served.backend.say(*events)
    return await asking


def data_lines(text: str) -> list[str]:
    return [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]


async def test_chat_answers_with_committed_text_and_usage(served: Served) -> None:
    answer = await answer_to(served, "/v1/chat/completions", CHAT, *SMALL_TALK)
    body = answer.json()
    assert (answer.status_code, body["object"], body["model"]) == (200, "chat.completion", "hand")
    assert body["id"].startswith("chatcmpl-")
    (choice,) = body["choices"]
    assert choice["message"] == {"role": "assistant", "content": SMALL_TALK_TEXT}
    assert (choice["index"], choice["finish_reason"]) == (0, "stop")
    assert body["usage"] == USAGE


async def test_chat_streams_committed_text_only_and_says_done(served: Served) -> None:
    body = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    answer = await answer_to(served, "/v1/chat/completions", body, *SMALL_TALK)
    assert answer.headers["content-type"].startswith("text/event-stream")
    *chunks, done = data_lines(answer.text)
    assert done == "[DONE]"
    decoded = [json.loads(chunk) for chunk in chunks]
    assert {chunk["object"] for chunk in decoded} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in decoded}) == 1
    *texts, last, usage = decoded
    assert texts[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(c["choices"][0]["delta"]["content"] for c in texts) == SMALL_TALK_TEXT
    assert last["choices"][0]["finish_reason"] == "stop"
    assert usage["choices"] == []
    assert usage["usage"] == USAGE
    assert all(chunk["usage"] is None for chunk in decoded[:-1])
    assert served.backend.drafts_wanted == []


async def test_completion_answers_and_streams(served: Served) -> None:
    body = {"prompt": "once", "model": "other", "stop": "END", "user": "somebody"}
    whole = await answer_to(served, "/v1/completions", body, *SMALL_TALK)
    assert whole.json()["object"] == "text_completion"
    assert whole.json()["model"] == "other"
    assert whole.json()["choices"][0]["text"] == SMALL_TALK_TEXT
    streamed = await answer_to(served, "/v1/completions", {**body, "stream": True}, *SMALL_TALK)
    *chunks, done = data_lines(streamed.text)
    assert done == "[DONE]"
    decoded = [json.loads(chunk) for chunk in chunks]
    assert "".join(chunk["choices"][0]["text"] for chunk in decoded) == SMALL_TALK_TEXT
    assert "usage" not in decoded[-1]


async def test_chat_request_is_translated_whole(served: Served) -> None:
    body: dict[str, Any] = {
        "messages": [
            {
                "role": "developer",
                "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "kind."}],
            },
            {"role": "user", "content": "hi", "name": "ada"},
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
        "n": 1,
        "response_format": {"type": "text"},
        "metadata": {"anything": "goes"},
        "tools": [],
        "logprobs": False,
    }
    await answer_to(served, "/v1/chat/completions", body, Finished("stop"))
    (request,) = served.backend.requests.values()
    assert request.messages == [Message("developer", "Be kind."), Message("user", "hi")]
    assert (request.max_tokens, request.temperature, request.top_p) == (7, 0.5, 0.9)
    assert (request.seed, request.stop) == (11, ["a", "b"])
    assert (request.frequency_penalty, request.presence_penalty) == (1.0, -1.0)
    assert (request.logit_bias, request.prediction) == ({"42": 5.0}, "maybe this")


@pytest.mark.parametrize(
    ("path", "text"),
    [("completions", '"prompt":"x"'), ("chat/completions", f'"messages":{CHAT["messages"]}')],
)
async def test_name_that_is_given_twice_is_refused(served: Served, path: str, text: str) -> None:
    body = "{" + text.replace("'", '"') + ',"user":{"a":1,"a":2}}'
    answer = await served.http.post(f"/v1/{path}", content=body)
    assert answer.status_code == 400
    assert (answer.json()["error"]["param"], served.backend.requests) == ("a", {})


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("chat/completions", {"n": 2}, "n"),
        ("chat/completions", {"tools": [{"type": "function"}]}, "tools"),
        ("chat/completions", {"functions": [{"name": "f"}]}, "functions"),
        ("chat/completions", {"response_format": {"type": "json_object"}}, "response_format.type"),
        ("chat/completions", {"logprobs": True}, "logprobs"),
        ("chat/completions", {"top_logprobs": 3}, "top_logprobs"),
        ("chat/completions", {"modalities": ["text", "audio"]}, "modalities"),
        ("chat/completions", {"audio": {"voice": "x"}}, "audio"),
        ("chat/completions", {"web_search_options": {}}, "web_search_options"),
        ("chat/completions", {"max_completion_tokens": 0}, "max_completion_tokens"),
        ("chat/completions", {"max_tokens": -1}, "max_tokens"),
        ("chat/completions", {"temperature": -1}, "temperature"),
        ("chat/completions", {"messages": []}, "messages"),
        ("chat/completions", {"messages": [{"role": "king", "content": ""}]}, "messages[0].role"),
        ("completions", {"prompt": ["a", "b"]}, "prompt"),
        ("completions", {"prompt": [1, 2]}, "prompt[0]"),
        ("completions", {"best_of": 2}, "best_of"),
        ("completions", {"echo": True}, "echo"),
        ("completions", {"suffix": "x"}, "suffix"),
        ("completions", {"logprobs": 0}, "logprobs"),
        ("completions", {"model": "nope"}, "model"),
    ],
)
async def test_field_that_would_change_the_result_is_refused_by_name(
    served: Served, path: str, fields: dict[str, Any], param: str
) -> None:
    body = {**(CHAT if path.startswith("chat") else {"prompt": "x"}), **fields}
    answer = await served.http.post(f"/v1/{path}", json=body)
    error = answer.json()["error"]
    assert 400 <= answer.status_code < 500
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    assert served.backend.requests == {}


@pytest.mark.parametrize(
    "ending",
    [Failed("engine_failed", "it broke"), Finished("cancelled"), Finished("content_filter")],
)
async def test_answer_that_was_cut_short_never_looks_complete(
    served: Served, ending: Failed | Finished
) -> None:
    events = [Verified("half an ans"), Drafted("wer"), ending]
    whole = await answer_to(served, "/v1/chat/completions", CHAT, *events)
    assert whole.status_code == 500
    assert whole.json()["error"]["code"] == "engine_failed"
    streamed = await answer_to(served, "/v1/chat/completions", {**CHAT, "stream": True}, *events)
    *chunks, last = [json.loads(line) for line in data_lines(streamed.text)]
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == "half an ans"
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks)
    assert last["error"]["type"] == "server_error"
    assert "[DONE]" not in streamed.text


async def test_reasoning_is_kept_apart_from_the_answer(served: Served) -> None:
    events = [Verified(""), PartBegins("reasoning"), Verified("hm"), PartBegins("text")]
    events += [Verified("yes"), Finished("length", COUNTS)]
    whole = await answer_to(served, "/v1/chat/completions", CHAT, *events)
    choice = whole.json()["choices"][0]
    assert choice["message"]["content"] == "yes"
    assert choice["message"]["reasoning_content"] == "hm"
    assert choice["finish_reason"] == "length"
    streamed = await answer_to(served, "/v1/chat/completions", {**CHAT, "stream": True}, *events)
    *lines, _ = data_lines(streamed.text)
    choices = [json.loads(line)["choices"][0] for line in lines]
    deltas = [choice["delta"] for choice in choices]
    assert choices[-1]["finish_reason"] == "length"
    assert {"reasoning_content": "hm"} in deltas
    assert {"content": "yes"} in deltas


@pytest.mark.parametrize("stream", [True, False])
async def test_generation_ends_when_its_only_reader_hangs_up(served: Served, stream: bool) -> None:
    asking = asyncio.create_task(
        served.http.post("/v1/chat/completions", json={**CHAT, "stream": stream})
    )
    await asyncio.wait_for(served.backend.admitted.get(), PATIENCE_S)
    asking.cancel()
    assert await asyncio.wait_for(served.backend.asked.get(), PATIENCE_S) == "cancel"


async def test_silence_is_filled_with_comments(served: Served) -> None:
    body = {**CHAT, "stream": True}
    async with served.http.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = response.aiter_lines()
        assert "assistant" in await anext(lines)
        await anext(lines)
        served.clock.advance(15.0)
        assert await asyncio.wait_for(anext(lines), PATIENCE_S) == ":"
        served.backend.say(Finished("stop"))
        assert (await anext(lines), json.loads((await anext(lines))[6:])["object"]) == (
            "",
            "chat.completion.chunk",
        )


@pytest.mark.parametrize("streaming", [True, False])
async def test_answer_leaves_no_stream_to_keep(streaming: bool) -> None:
    async with hand_served(limits__kept_streams=1) as served:
        resumable = await served.start()
        await served.backend.admitted.get()
        served.backend.say(Finished("stop"))
        for _ in range(3):
            body = {**CHAT, "stream": streaming}
            answer = await answer_to(served, "/v1/chat/completions", body, Finished("stop"))
            assert answer.status_code == 200
        # It would have been the first to go.
        assert (await served.snapshot(resumable))["state"] == "finished"
