"""Every field of OpenAI's requests, and what becomes of it here.

One list: requests are decoded by it, docs/openai.md shows it, and the tests try each row of it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple, TypeAlias


class Fate(StrEnum):
    HONOURED = "honoured"
    HARMLESS = "harmless"
    """Let through: leaving it aside changes nothing that the caller could rely on."""
    REFUSED = "refused"
    """Refused by name, as the caller would get another result than asked for."""


class Parameter(NamedTuple):
    fate: Fate
    example: object
    """A value that is honoured, let through, or refused."""
    note: str
    """What it does here; for a refused one, why, and what to do instead."""
    neutral: tuple[object, ...] = ()
    """Of a refused one: values that ask for nothing, so they pass. Null always does."""


Parameters: TypeAlias = dict[str, Parameter]


def _honoured(example: object, note: str = "") -> Parameter:
    return Parameter(Fate.HONOURED, example, note)


def _harmless(example: object, note: str) -> Parameter:
    return Parameter(Fate.HARMLESS, example, note)


def _refused(example: object, note: str, *neutral: object) -> Parameter:
    return Parameter(Fate.REFUSED, example, note, neutral)


_SHARED: Parameters = {
    "model": _honoured("other", "may be left out: the gateway's first model"),
    "stream": _honoured(True),
    "stream_options": _honoured({"include_usage": True}, "with `stream` only"),
    "max_tokens": _honoured(7, "left out: the rest of the context"),
    "temperature": _honoured(0.5, "0 … 10; left out: the model's own"),
    "top_p": _honoured(0.9, "left out: the model's own"),
    "seed": _honoured(11, "choice number k of a prompt uses `seed` + k"),
    "stop": _honoured(["END"], "a string, or up to 16 of them"),
    "frequency_penalty": _honoured(0.5),
    "presence_penalty": _honoured(-0.5),
    "logit_bias": _honoured({"42": 5}, "by token id, −100 … 100"),
    "n": _honoured(2, "1 … 128; the prompt is counted once"),
    "user": _harmless("ada", "labels the request for its sender"),
}

_BEYOND: Parameters = {
    "top_k": _honoured(40, "not OpenAI's"),
    "min_p": _honoured(0.05, "not OpenAI's"),
    "repetition_penalty": _honoured(1.1, "not OpenAI's"),
    "ignore_eos": _honoured(True, "not OpenAI's: go on after the model's end of text"),
    "stop_token_ids": _honoured([2], "not OpenAI's"),
    "wetink": _honoured(
        {"draft": {"length": 0}},
        "not OpenAI's: `policy` (with `stream`), `offsets`, `include`, `draft` of a Wetink "
        "request; chunks then carry `wetink`, the event they were made of",
    ),
}

CHAT: Parameters = {
    "messages": _honoured([{"role": "user", "content": "Where do ships sleep?"}]),
    **_SHARED,
    "max_completion_tokens": _honoured(7, "the newer name of `max_tokens`; give one of them"),
    "logprobs": _honoured(True, "of committed tokens, before temperature and penalties"),
    "top_logprobs": _honoured(3, "0 … 20, with `logprobs` only"),
    "prediction": _honoured(
        {"type": "content", "content": "Ships sleep at anchor."},
        "the drafter copies from it; changes the speed, never the text",
    ),
    "metadata": _harmless({"team": "docs"}, "labels the request for its sender"),
    "store": _harmless(True, "nothing is stored, so nothing can be retrieved later"),
    "safety_identifier": _harmless("u-1", "labels the request for its sender"),
    "prompt_cache_key": _harmless("k", "prompts are cached without it"),
    "prompt_cache_retention": _harmless("24h", "prompts are cached as long as there is room"),
    "prompt_cache_options": _harmless({"ttl": "30m"}, "prompts are cached without it"),
    "service_tier": _harmless("auto", "there is one tier"),
    "response_format": _honoured(
        {
            "type": "json_schema",
            "json_schema": {
                "name": "tide",
                "strict": True,
                "schema": {
                    "type": "object",
                    "properties": {"high": {"type": "boolean"}},
                    "required": ["high"],
                    "additionalProperties": False,
                },
            },
        },
        "`text`, `json_object`, `json_schema`: by constrained decoding, whatever `strict` says; a "
        "schema that cannot be met is refused with its path",
    ),
    "tools": _honoured(
        [{"type": "function", "function": {"name": "tide", "parameters": {"type": "object"}}}],
        "of type `function`; told to the model by its chat template, or else as text",
    ),
    "parallel_tool_calls": _honoured(
        False,
        "false, or a function's name in `tool_choice`: one call where one is required; otherwise "
        "the model decides",
    ),
    "tool_choice": _honoured(
        {"type": "function", "function": {"name": "tide"}},
        "`auto`: the model decides, and `strict` holds no call to its schema; `required` and a "
        "function's name: by constrained decoding, whatever `strict` says; "
        "`none`",
    ),
    "functions": _refused([{"name": "f"}], "functions are not supported; leave it out", []),
    "function_call": _refused(
        {"name": "f"}, "functions are not supported; leave it out", "none", "auto"
    ),
    "modalities": _refused(["text", "audio"], "only ['text'] is supported", ["text"]),
    "audio": _refused({"voice": "alloy"}, "audio is not supported; leave it out"),
    "web_search_options": _refused({}, "web search is not supported; leave it out"),
    "reasoning_effort": _refused("high", "the model has no such control; leave it out", "none"),
    "verbosity": _refused("low", "the model has no such control; ask in the prompt", "medium"),
    "moderation": _refused(
        {"model": "omni-moderation-latest"}, "nothing is moderated here; leave it out"
    ),
    **_BEYOND,
}

COMPLETIONS: Parameters = {
    "prompt": _honoured(["One", "Two"], "a string or several; token ids are refused"),
    **_SHARED,
    "logprobs": _honoured(2, "of the chosen tokens, and of so many alternatives: 0 … 20"),
    "best_of": _refused(2, "only 1 is supported: choices are not ranked", 1),
    "echo": _refused(True, "only false is supported: put the prompt before the answer", False),
    "suffix": _refused("the end", "insertion is not supported; leave it out", ""),
    **_BEYOND,
}

MESSAGE: Parameters = {
    "role": _honoured("user", "`system`, `developer`, `user`, `assistant`, `tool`"),
    "content": _honoured(
        [{"type": "text", "text": "Hello"}],
        "a string or text parts; null beside `tool_calls`. Images, audio and files are refused",
    ),
    "tool_calls": _honoured(
        [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        'by the chat template, or else as `<tool_call>{"name": …, "arguments": …}</tool_call>`',
    ),
    "tool_call_id": _honoured("c1", "told where the chat template has a place for it"),
    "name": _harmless("ada", "chat templates have no place for it"),
    "annotations": _harmless([], "come with answers, say nothing to the model"),
    "reasoning_content": _harmless("hm", "earlier reasoning is not shown to the model again"),
    "refusal": _refused("I cannot", "this model's answers have none; put it into `content`"),
    "audio": _refused({"id": "a1"}, "audio is not supported; leave it out"),
    "function_call": _refused(
        {"name": "f", "arguments": "{}"}, "functions are not supported; use `tool_calls`"
    ),
}

STREAM_OPTIONS: Parameters = {
    "include_usage": _honoured(True, "a last chunk with `usage` and no choices"),
    "include_obfuscation": _refused(True, "chunks are not padded; leave it out", False),
}

_REASONING = _refused({"effort": "high"}, "the model has no such control; leave it out", {})

RESPONSES: Parameters = {
    "input": _honoured(
        [{"role": "user", "content": "Where do ships sleep?"}],
        "a string, or items: messages of text, `function_call`, `function_call_output`; earlier "
        "`reasoning` is not shown to the model again",
    ),
    "instructions": _honoured("Be brief.", "the system message; not carried to later responses"),
    "model": _SHARED["model"],
    "stream": _SHARED["stream"],
    "max_output_tokens": _honoured(7, "left out: the rest of the context"),
    "temperature": _SHARED["temperature"],
    "top_p": _SHARED["top_p"],
    "text": _honoured(
        {"format": {"type": "json_object"}}, "`format` as `response_format` of a chat"
    ),
    "tools": _honoured(
        [{"type": "function", "name": "tide", "parameters": {"type": "object"}}],
        "of type `function`",
    ),
    "tool_choice": _honoured("auto", "`auto`, `required`, `none` or a function's name"),
    "parallel_tool_calls": CHAT["parallel_tool_calls"],
    "store": _honoured(
        False, "left out: kept as streams are, for `previous_response_id`; false: not kept"
    ),
    "previous_response_id": _honoured(
        "resp_x", "of a response that this key made and that is still kept"
    ),
    "user": _SHARED["user"],
    "metadata": CHAT["metadata"],
    "safety_identifier": CHAT["safety_identifier"],
    "prompt_cache_key": CHAT["prompt_cache_key"],
    "prompt_cache_retention": CHAT["prompt_cache_retention"],
    "prompt_cache_options": CHAT["prompt_cache_options"],
    "service_tier": CHAT["service_tier"],
    "access_programs": _refused([], "there are none here; leave it out"),
    "background": _refused(True, "only false is supported: start a stream instead", False),
    "background_options": _refused({}, "only false is supported for background; leave it out"),
    "context_management": _refused([{"type": "compaction"}], "contexts are not managed", []),
    "conversation": _refused("conv_x", "use previous_response_id"),
    "image": _refused({}, "images are not supported; leave it out"),
    "include": _refused(["message.output_text.logprobs"], "nothing can be added; leave it out", []),
    "max_tool_calls": _refused(3, "no tools are built in; leave it out"),
    "moderation": CHAT["moderation"],
    "prompt": _refused({"id": "p"}, "prompts are not stored; use input"),
    "reasoning": _REASONING,
    "stream_options": _refused(
        {"include_obfuscation": True},
        "events are not padded; leave it out",
        {},
        {"include_obfuscation": False},
    ),
    "top_logprobs": _refused(3, "alternatives are not reported: only 0 is supported", 0),
    "truncation": _refused("auto", "what does not fit is refused: only disabled", "disabled"),
}
