"""OpenAI's interface over real HTTP."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from gateway.backends.base import Drafted, Failed, Finished, PartBegins, Verified
from protocol.events import Alternative, Token
from tests.server.gateways import PATIENCE_S, hand_served
from tests.server.openai.asking import CHAT, answer_to, chunks_of, data_lines
from tests.unit.gateway.doubles import COUNTS, SMALL_TALK, SMALL_TALK_TEXT

if TYPE_CHECKING:
    from tests.server.gateways import Served

USAGE = {
    "prompt_tokens": 2,
    "completion_tokens": 8,
    "total_tokens": 10,
    "prompt_tokens_details": {"cached_tokens": 1},
    "completion_tokens_details": {
        "accepted_prediction_tokens": 6,
        "rejected_prediction_tokens": 4,
        "reasoning_tokens": 0,
    },
}


async def test_chat_answers_with_committed_text_and_usage(served: Served) -> None:
    answer = await answer_to(served, "/v1/chat/completions", CHAT, *SMALL_TALK)
    body = answer.json()
    assert (answer.status_code, body["object"], body["model"]) == (200, "chat.completion", "hand")
    assert body["id"].startswith("chatcmpl-")
    (choice,) = body["choices"]
    assert choice["message"] == {
        "role": "assistant",
        "content": SMALL_TALK_TEXT,
        "refusal": None,
    }
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
    body = {"prompt": "once", "model": "other", "stop": "END"}
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


async def test_choices_are_streams_of_their_own_with_their_own_seeds(served: Served) -> None:
    body = {**CHAT, "n": 3, "seed": 5}
    answer = await answer_to(served, "/v1/chat/completions", body, *SMALL_TALK, choices=3)
    choices = answer.json()["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2]
    assert {choice["message"]["content"] for choice in choices} == {SMALL_TALK_TEXT}
    assert [request.seed for request in served.backend.requests.values()] == [5, 6, 7]
    usage = answer.json()["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (2, 24)


async def test_chunks_of_choices_are_told_apart_and_end_together(served: Served) -> None:
    body = {**CHAT, "n": 2, "stream": True, "stream_options": {"include_usage": True}}
    answer = await answer_to(served, "/v1/chat/completions", body, *SMALL_TALK, choices=2)
    *chunks, usage = chunks_of(answer.text)
    for index in range(2):
        own = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == index]
        assert "".join(c["delta"].get("content", "") for c in own) == SMALL_TALK_TEXT
        assert [c["finish_reason"] for c in own if c["finish_reason"]] == ["stop"]
    assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], 16)


async def test_choice_that_fails_ends_the_others(served: Served) -> None:
    asking = asyncio.create_task(
        served.http.post("/v1/chat/completions", json={**CHAT, "n": 2, "stream": True})
    )
    first = await asyncio.wait_for(served.backend.admitted.get(), PATIENCE_S)
    second = await asyncio.wait_for(served.backend.admitted.get(), PATIENCE_S)
    served.backend.say(Failed("engine_failed", "it broke"), stream=first)
    answer = await asking
    assert json.loads(data_lines(answer.text)[-1])["error"]["code"] == "engine_failed"
    assert await asyncio.wait_for(served.backend.asked.get(), PATIENCE_S) == "cancel"
    assert served.backend.cancelled == [second]


async def test_several_prompts_are_several_choices(served: Served) -> None:
    body = {"prompt": ["one two", "three"], "n": 2}
    answer = await answer_to(served, "/v1/completions", body, *SMALL_TALK, choices=4)
    assert [choice["index"] for choice in answer.json()["choices"]] == [0, 1, 2, 3]
    prompts = [request.prompt for request in served.backend.requests.values()]
    assert prompts == ["one two", "one two", "three", "three"]
    assert answer.json()["usage"]["prompt_tokens"] == 4, "each prompt is counted once"


SCORED = [
    Verified("Hé", tokens=[Token(7, 1, -0.5), Token(8, 0, -1.0), Token(9, 1, -0.25)]),
    Verified(" you", tokens=[Token(10, 4, -2.0)]),
    Finished("stop"),
]


@pytest.mark.parametrize("stream", [True, False])
async def test_chat_reports_logprobs_of_committed_tokens(served: Served, stream: bool) -> None:
    body = {**CHAT, "logprobs": True, "stream": stream}
    answer = await answer_to(served, "/v1/chat/completions", body, *SCORED)
    choices = (
        [chunk["choices"][0] for chunk in chunks_of(answer.text)]
        if stream
        else answer.json()["choices"]
    )
    content = [each for c in choices if c["logprobs"] for each in c["logprobs"]["content"]]
    assert [(each["token"], each["logprob"]) for each in content] == [
        ("H", -0.5),
        ("", -1.0),
        ("é", -0.25),
        (" you", -2.0),
    ]
    assert [each["bytes"] for each in content[:3]] == [[72], None, [0xC3, 0xA9]]
    (request,) = served.backend.requests.values()
    assert request.include == ["logprobs"]


TOP = [Alternative(7, "Hé", -0.5), Alternative(3, "", -2.0), Alternative(4, "", -3.0)]
WITH_TOP = [
    Verified("Hé", tokens=[Token(7, 2, -0.5, top=TOP)]),
    Finished("stop"),
]


async def test_chat_reports_as_many_alternatives_as_are_asked_for(served: Served) -> None:
    body = {**CHAT, "logprobs": True, "top_logprobs": 3}
    answer = await answer_to(served, "/v1/chat/completions", body, *WITH_TOP)
    (scored,) = answer.json()["choices"][0]["logprobs"]["content"]
    assert scored["top_logprobs"] == [
        {"token": "Hé", "logprob": -0.5, "bytes": [72, 0xC3, 0xA9]},
        {"token": "", "logprob": -2.0, "bytes": None},
        {"token": "", "logprob": -3.0, "bytes": None},
    ]
    (request,) = served.backend.requests.values()
    assert (request.include, request.top_logprobs) == (["logprobs"], 3)


async def test_completion_reports_alternatives_by_their_text(served: Served) -> None:
    answer = await answer_to(served, "/v1/completions", {"prompt": "x", "logprobs": 3}, *WITH_TOP)
    assert answer.json()["choices"][0]["logprobs"]["top_logprobs"] == [{"Hé": -0.5, "": -2.0}]
    (request,) = served.backend.requests.values()
    assert request.top_logprobs == 3


async def test_completion_reports_logprobs_with_offsets(served: Served) -> None:
    body = {"prompt": "x", "logprobs": 0}
    answer = await answer_to(served, "/v1/completions", body, *SCORED)
    assert answer.json()["choices"][0]["logprobs"] == {
        "tokens": ["H", "", "é", " you"],
        "token_logprobs": [-0.5, -1.0, -0.25, -2.0],
        "top_logprobs": None,
        "text_offset": [0, 1, 1, 2],
    }


async def test_logprobs_are_told_whole_where_a_policy_cuts_within_a_token(served: Served) -> None:
    body = {
        "prompt": "x",
        "logprobs": 0,
        "stream": True,
        "wetink": {"policy": {"kind": "chunk", "unit": "word"}},
    }
    tokens = [Token(1, 2, -1.0), Token(2, 8, -2.0)]
    events = [Verified("Hi two you", tokens=tokens), Finished("stop")]
    answer = await answer_to(served, "/v1/completions", body, *events)
    scored = [chunk["choices"][0]["logprobs"] for chunk in chunks_of(answer.text)]
    told = [each for each in scored if each is not None]
    assert [token for each in told for token in each["tokens"]] == ["Hi", " two you"]
    assert [at for each in told for at in each["text_offset"]] == [0, 2]


async def test_vendor_field_shows_drafts_and_changes_nothing_else(served: Served) -> None:
    plain = {**CHAT, "stream": True}
    asked = {**plain, "wetink": {"policy": "retract", "offsets": "utf-16"}}
    before = chunks_of((await answer_to(served, "/v1/chat/completions", plain, *SMALL_TALK)).text)
    assert served.backend.drafts_wanted == []
    assert all("wetink" not in chunk for chunk in before)

    asking = asyncio.create_task(served.http.post("/v1/chat/completions", json=asked))
    stream = await asyncio.wait_for(served.backend.admitted.get(), PATIENCE_S)
    assert served.backend.drafts_wanted == [(stream, True)]
    served.backend.say(*SMALL_TALK[:1])
    served.backend.say(*SMALL_TALK[1:])
    chunks = chunks_of((await asking).text)
    texts = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
    assert "".join(texts) == SMALL_TALK_TEXT
    assert all(len(chunk["choices"]) == 1 for chunk in chunks)
    events = [chunk["wetink"] for chunk in chunks]
    assert events[0]["type"] == "open"
    assert (events[0]["policy"]["kind"], events[0]["offsets"]) == ("retract", "utf-16")
    assert events[-1]["type"] == "finish"
    for text, event in zip(texts, events, strict=True):
        assert text == (event["text"] if event["type"] == "commit" else "")


async def test_vendor_field_shows_each_draft_and_what_became_of_it(served: Served) -> None:
    body = {"prompt": "x", "stream": True, "wetink": {"policy": "retract"}}
    async with served.http.stream("POST", "/v1/completions", json=body) as response:
        lines = response.aiter_lines()

        async def next_event() -> dict[str, object]:
            async with asyncio.timeout(PATIENCE_S):
                line = await anext(lines)
                assert await anext(lines) == ""
            return dict(json.loads(line.removeprefix("data: "))["wetink"])

        assert (await next_event())["type"] == "open"
        served.backend.say(Drafted("one two"))
        assert await next_event() == {"type": "tentative", "at": 0, "text": "one two"}
        served.backend.say(Verified("one", cause="draft_rejected"))
        assert await next_event() == {
            "type": "commit",
            "at": 0,
            "text": "one",
            "retract": {"at": 3, "n": 4, "cause": "draft_rejected"},
        }
        served.backend.say(Finished("stop"))
        assert (await next_event())["type"] == "finish"
