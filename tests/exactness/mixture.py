"""Sixteen requests that differ in everything a request can differ in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from engine.frames import ChatMessage
from tests.generation import Transcript, request

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engine.frames import Start

LONG = "The reader sees the text grow, and the text the reader sees is the text that stays. " * 3
PROMPTS: list[str | list[ChatMessage]] = [
    "The ink is wet, the ink is dry; the ink is",
    "A",
    LONG,
    [ChatMessage("user", "Say one two three.")],
    "one two three four one two three four one two",
    LONG + "And then?",
    [ChatMessage("system", "Be brief."), ChatMessage("user", "Überraschung: 日本語 🙂")],
    "What is wrong is taken",
]
SAMPLING: list[dict[str, Any]] = [
    {"temperature": 0.0},
    {"temperature": 0.7},
    {"temperature": 1.3},
    {"temperature": 0.7, "top_p": 0.9, "top_k": 40},
    {"temperature": 1.3, "min_p": 0.02, "frequency_penalty": 0.6},
    {"temperature": 0.0, "repetition_penalty": 1.3},
    {"temperature": 0.7, "presence_penalty": 0.8, "logit_bias": {280: 4.0, 5: -100.0}},
    {"temperature": 1.3, "top_k": 20, "repetition_penalty": 1.1, "ignore_eos": True},
    {"temperature": 0.0, "stop_token_ids": [290, 300, 310]},
    {"temperature": 0.7, "ignore_eos": True, "max_tokens": 70},
    {"temperature": 1.3, "max_tokens": 1},
    {"temperature": 0.0, "max_tokens": 17, "ignore_eos": True},
    {"temperature": 0.7, "stop": [" the", "k"]},
    {"temperature": 1.3, "stop": ["o", " reader sees", "\n\n"], "min_p": 0.05},
    {"temperature": 0.0, "frequency_penalty": 1.5, "presence_penalty": 0.2, "max_tokens": 60},
    {"temperature": 0.7, "top_p": 0.5, "max_tokens": 60},
]
MAX_TOKENS = 40


def mixed_requests(*, temperature: float | None = None) -> list[Start]:
    """One per entry of SAMPLING, in that order; `temperature`: the same for all."""
    starts: list[Start] = []
    for number, sampling in enumerate(SAMPLING):
        usual = {"max_tokens": MAX_TOKENS, "seed": 1000 + number, "logprobs": True}
        settings: dict[str, Any] = usual | sampling
        if temperature is not None:
            settings["temperature"] = temperature
        starts.append(request(f"r{number}", PROMPTS[number % len(PROMPTS)], **settings))
    return starts


def drafting(
    starts: Sequence[Start], drafters: Sequence[str], lengths: Sequence[int], **changes: Any
) -> list[Start]:
    """The same requests with these drafters and draft lengths in turn."""
    return [
        msgspec.structs.replace(
            start,
            drafter=drafters[number % len(drafters)],
            draft_length=lengths[number % len(lengths)],
            **changes,
        )
        for number, start in enumerate(starts)
    ]


def assert_same(actual: Mapping[str, Transcript], expected: Mapping[str, Transcript]) -> None:
    """Byte for byte: text, token ids, where each token's text ends, log-probabilities, reason."""
    for stream, transcript in actual.items():
        reference = expected[stream]
        assert transcript.text == reference.text, stream
        assert transcript.tokens == reference.tokens, stream
        assert transcript.reason == reference.reason, stream
