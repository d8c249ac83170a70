"""Sampling parameters of one request, validated by the edge that built them."""

from __future__ import annotations

import msgspec


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
