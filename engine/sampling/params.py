"""Sampling parameters of one request, validated by the edge that built them."""

from __future__ import annotations

from typing import Literal, TypeVar

import msgspec

Number = TypeVar("Number", int, float)


class SamplingDefaults(msgspec.Struct, frozen=True, kw_only=True):
    """What a model's generation config recommends; None where it says nothing."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None


class Grammar(msgspec.Struct, frozen=True):
    """What the completion must follow: a JSON schema, a regular expression or a Lark grammar (both
    as llguidance has them), as text; or calls of tools (`tool_calls.Calls` as JSON).
    """

    kind: Literal["json_schema", "regex", "lark", "tool_call"]
    text: str


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True):
    """How the next token is chosen from the target's logits.

    `temperature` 0 is greedy. None means: the model's own generation config, else the neutral value
    (temperature 1, no top-k, top-p 1, min-p 0). `seed` None: one is drawn and reported.
    """

    max_tokens: int = 256
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: list[str] = []
    stop_token_ids: list[int] = []
    ignore_eos: bool = False
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict[int, float] = {}
    logprobs: bool = False
    top_logprobs: int = 0
    """How many of the most probable tokens are reported with each; only with `logprobs`."""
    grammar: Grammar | None = None

    def completed(self, defaults: SamplingDefaults) -> SamplingParams:
        """With the model's own defaults where the request left a choice open."""
        return msgspec.structs.replace(
            self,
            temperature=_first(self.temperature, defaults.temperature, 1.0),
            top_p=_first(self.top_p, defaults.top_p, 1.0),
            top_k=_first(self.top_k, defaults.top_k, 0),
            min_p=_first(self.min_p, defaults.min_p, 0.0),
        )

    def limited(self, max_tokens: int) -> SamplingParams:
        """With at most `max_tokens` tokens of completion."""
        return msgspec.structs.replace(self, max_tokens=min(self.max_tokens, max_tokens))


def _first(asked: Number | None, default: Number | None, neutral: Number) -> Number:
    if asked is not None:
        return asked
    return neutral if default is None else default
