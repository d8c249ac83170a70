from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.backends.openai.dialects import DIALECTS, dialect_of
from gateway.backends.openai.requests import Asked, asked_of, continued
from protocol.errors import ErrorCode, RequestError
from protocol.requests import GenerationRequest

MESSAGES = [{"role": "user", "content": "Hi"}]


def asked(dialect: str = "compatible", *, takes_seed: bool = True, **fields: Any) -> Asked:
    given = {"seed": 5, **({} if "messages" in fields else {"prompt": "Hi"}), **fields}
    request = msgspec.convert(given, GenerationRequest)
    return asked_of(
        request, DIALECTS[dialect], model="there", context_length=1000, takes_seed=takes_seed
    )


def test_request_says_what_was_asked_and_nothing_else() -> None:
    assert asked(max_tokens=9) == Asked(
        "/completions",
        {
            "model": "there",
            "stream": True,
            "stream_options": {"include_usage": True},
            "prompt": "Hi",
            "max_tokens": 9,
            "seed": 5,
        },
    )
    chat = asked(messages=MESSAGES, temperature=0.0, top_p=0.5, stop=["a"], logit_bias={"7": 1})
    assert chat.path == "/chat/completions"
    assert chat.body["messages"] == MESSAGES
    assert (chat.body["temperature"], chat.body["top_p"]) == (0.0, 0.5)
    assert (chat.body["stop"], chat.body["logit_bias"]) == (["a"], {"7": 1.0})


def test_request_for_all_the_context_names_no_number() -> None:
    assert "max_tokens" not in asked(max_tokens=1000).body
    assert asked(max_tokens=999).body["max_tokens"] == 999


def test_request_has_no_seed_for_who_takes_none() -> None:
    assert "seed" not in asked(takes_seed=False).body


@pytest.mark.parametrize(
    ("dialect", "field", "value", "there"),
    [
        ("vllm", "top_k", 0, "top_k"),
        ("compatible", "min_p", 0.1, "min_p"),
        ("llama.cpp", "repetition_penalty", 1.1, "repeat_penalty"),
        ("sglang", "stop_token_ids", [3], "stop_token_ids"),
        ("openai", "top_k", 4, None),
        ("llama.cpp", "stop_token_ids", [3], None),
    ],
)
def test_sampling_beyond_openai_goes_by_the_dialects_name_or_is_refused(
    dialect: str, field: str, value: Any, there: str | None
) -> None:
    if there is not None:
        assert asked(dialect, **{field: value}).body[there] == value
        return
    with pytest.raises(RequestError) as refused:
        asked(dialect, **{field: value})
    assert (refused.value.code, refused.value.param) == (ErrorCode.INVALID_VALUE, field)


def test_hosted_models_are_told_how_much_by_the_newer_name() -> None:
    assert asked("openai", messages=MESSAGES, max_tokens=9).body["max_completion_tokens"] == 9
    assert asked("openai", max_tokens=9).body["max_tokens"] == 9


CALL = {"name": "f", "arguments": '{"at": "sea"}', "id": "c1"}
TOOL = {"name": "f", "parameters": {"type": "object"}}


@pytest.mark.parametrize(
    ("dialect", "grammar", "field"),
    [
        ("compatible", {"kind": "json_schema", "schema": {}}, "response_format"),
        ("vllm", {"kind": "regex", "pattern": "a"}, "structured_outputs"),
        ("vllm", {"kind": "lark", "rules": "start: a"}, "structured_outputs"),
        ("sglang", {"kind": "regex", "pattern": "a"}, "regex"),
        ("compatible", {"kind": "regex", "pattern": "a"}, None),
        ("sglang", {"kind": "lark", "rules": "start: a"}, None),
    ],
)
def test_grammar_goes_where_the_dialect_takes_it_or_is_refused(
    dialect: str, grammar: dict[str, object], field: str | None
) -> None:
    if field is None:
        with pytest.raises(RequestError, match="grammar"):
            asked(dialect, messages=MESSAGES, grammar=grammar)
    else:
        assert field in asked(dialect, messages=MESSAGES, grammar=grammar).body


def test_tools_and_what_was_called_before_go_along() -> None:
    talk = [
        *MESSAGES,
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "high", "tool_call_id": "c1"},
    ]
    body = asked(
        "compatible", messages=talk, tools=[TOOL], tool_choice="required", parallel_tool_calls=False
    ).body
    assert body["tools"] == [{"type": "function", "function": {"description": "", **TOOL}}]
    assert (body["tool_choice"], body["parallel_tool_calls"]) == ("required", False)
    assert body["messages"][-2:] == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "f", "arguments": '{"at": "sea"}'},
                }
            ],
        },
        {"role": "tool", "content": "high", "tool_call_id": "c1"},
    ]
    with pytest.raises(RequestError, match="only with messages"):
        asked("compatible", tools=[TOOL])


def test_ids_are_asked_for_where_tokens_are_wanted() -> None:
    body = asked("vllm", messages=MESSAGES, include=["tokens"]).body
    assert (body["logprobs"], body["return_token_ids"]) == (True, True)
    assert asked("vllm", include=["logprobs"]).body["logprobs"] == 0


def test_raw_prompt_is_continued_behind_its_text() -> None:
    further = continued(asked(max_tokens=9), DIALECTS["openai"], " there", 2)
    assert further is not None
    assert (further.body["prompt"], further.body["max_tokens"]) == ("Hi there", 7)
    last = continued(asked(max_tokens=2), DIALECTS["openai"], " there", 5)
    assert last is not None and last.body["max_tokens"] == 1


@pytest.mark.parametrize(
    ("dialect", "flags"), [("vllm", (True, False)), ("llama.cpp", (None, None)), ("openai", None)]
)
def test_chat_is_continued_where_the_dialect_has_a_way(
    dialect: str, flags: tuple[bool | None, bool | None] | None
) -> None:
    further = continued(asked(dialect, messages=MESSAGES), DIALECTS[dialect], "Well", 1)
    if flags is None:
        assert further is None
        return
    assert further is not None
    body = further.body
    assert body["messages"] == [*MESSAGES, {"role": "assistant", "content": "Well"}]
    assert (body.get("continue_final_message"), body.get("add_generation_prompt")) == flags


def test_text_under_a_grammar_is_not_continued() -> None:
    schema: dict[str, object] = {"kind": "json_schema", "schema": {}}
    request = asked("vllm", messages=MESSAGES, grammar=schema)
    assert continued(request, DIALECTS["vllm"], "{", 1) is None


@pytest.mark.parametrize(
    ("owner", "name"),
    [("vllm", "vllm"), ("llamacpp", "llama.cpp"), ("openai", "openai"), (None, "compatible")],
)
def test_dialect_is_told_from_the_owner_of_models(owner: str | None, name: str) -> None:
    assert dialect_of(owner).name == name
