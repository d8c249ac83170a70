"""What can be combined, and one combination drawn from a number.

A request's text is decided by its model, prompt and sampling: its *task*. All else (drafter, draft
length, company, cuts, cache, preemption, restarts, threads) must not show. Tasks come from a small
pool, so that one reference serves many combinations.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import msgspec

from engine.config import MAX_DRAFT_LENGTH
from engine.frames import ChatMessage
from tests.exactness.mixture import LONG
from tests.generation import request

if TYPE_CHECKING:
    from engine.frames import Start

POOL = 24
"""Tasks per model."""
TOKENS = 256
PROMPT_ROOM = 96
"""Tokens that the longest prompt may have: with less room than for one whole text, that text would
be shorter, which is no fault.
"""


class Model(msgspec.Struct, frozen=True):
    """One model as it can be served; `weight`: how often it is drawn."""

    name: str
    weight: float
    embedded: bool
    drafters: list[str]
    settings: dict[str, Any]


TORCH = {"kernels": "torch"}
COPYING = ["none", "ngram", "suffix"]
HEADS = ["head", "combined"]
MODELS = [
    Model("embedded native", 5, True, COPYING + HEADS, {"kernels": "native"}),
    Model("embedded torch bfloat16", 0.5, True, COPYING, TORCH | {"dtype": "bfloat16"}),
    *(
        Model(
            f"tiny native {dtype}",
            1.5,
            False,
            [*COPYING, *HEADS, "model"],
            {"kernels": "native", "dtype": dtype},
        )
        for dtype in ("float32", "bfloat16", "int8", "int4")
    ),
    *(
        Model(f"tiny torch {dtype}", 1, False, [*COPYING, "model"], TORCH | {"dtype": dtype})
        for dtype in ("float32", "bfloat16")
    ),
]

PROMPTS: list[str | list[ChatMessage]] = [
    "The ink is wet, the ink is dry; the ink is",
    "A",
    LONG,
    [ChatMessage("user", "Say one two three.")],
    "one two three four one two three four one two",
    LONG + "And then?",
    [ChatMessage("system", "Be brief."), ChatMessage("user", "Überraschung: 日本語 🙂")],
    "def fibonacci(n):\n",
    "1, 2, 3, 4, 5, 6,",
    LONG[:100],
]
STOPS = [["zq"], ["\n\n\n", "xyzzy"], [" the reader sees the"], ["."]]
"""The first ones hardly ever match: they are there to hold text back."""


class Part(msgspec.Struct, frozen=True):
    """One request of a combination."""

    task: int
    drafter: str
    draft_length: int
    predicted: bool
    """The drafter is given a guess at the text, half right."""
    priority: int
    arrival: int
    """Steps after the first."""
    resumed: float | None
    """Begins behind this share of its text, as after a restart."""


class Combination(msgspec.Struct, frozen=True):
    number: int
    model: str
    tokens: int
    """Most per request."""
    settings: dict[str, Any]
    warm: bool
    """The prefix cache has seen the same prompts."""
    dies: int | None
    """After so many steps the engine is gone, and another goes on from what was committed."""
    threads_afterwards: int
    parts: list[Part]


def model_named(name: str) -> Model:
    return next(model for model in MODELS if model.name == name)


def draw(seed: int, number: int, *, model: str | None = None, tokens: int = TOKENS) -> Combination:
    """Combination `number` of those that `seed` stands for; the same on every machine."""
    dice = random.Random(f"{seed} {number}")
    weights = [m.weight for m in MODELS]
    drawn = dice.choices(MODELS, weights)[0]
    chosen = drawn if model is None else model_named(model)
    block_size = dice.choice([16, 16, 32, 64])
    least = -(-(PROMPT_ROOM + tokens) // block_size)
    settings = chosen.settings | {
        "threads": dice.randint(1, 4),
        "draft_length": dice.choice([0, 1, 2, 4, 8, MAX_DRAFT_LENGTH]),
        "adaptive_draft": dice.random() < 0.5,
        "max_step_tokens": dice.choice([5, 17, 40, 100, 256]),
        "max_sequences": dice.choice([2, 4, 32]),
        "prefix_cache": dice.random() < 0.7,
        "block_size": block_size,
        "kv_blocks": dice.choice([least, least * 3 // 2, least * 8]),
    }
    count = dice.choice([1, 2, 3, 4, 6])
    parts = [
        Part(
            task=dice.randrange(POOL),
            drafter=dice.choice(chosen.drafters),
            draft_length=dice.randint(0, MAX_DRAFT_LENGTH),
            predicted=dice.random() < 0.5,
            priority=dice.choice([0, 0, 1]),
            arrival=dice.choice([0, 0, dice.randrange(60)]),
            resumed=dice.choice([None, None, None, dice.random()]),
        )
        for _ in range(count)
    ]
    return Combination(
        number=number,
        model=chosen.name,
        tokens=tokens,
        settings=settings,
        warm=dice.random() < 0.3,
        dies=dice.choice([None, None, dice.randrange(1, 120)]),
        threads_afterwards=dice.randint(1, 4),
        parts=parts,
    )


def task(model: str, number: int, tokens: int) -> Start:
    """Task `number` of `model`'s pool: alone, without drafts."""
    dice = random.Random(f"{model_named(model).embedded} {number}")
    sampling: dict[str, Any] = {
        "temperature": dice.choice([0.0, 0.2, 0.7, 1.3]),
        "top_k": dice.choice([0, 0, 1, 20, 200]),
        "top_p": dice.choice([1.0, 1.0, 0.9, 0.5]),
        "min_p": dice.choice([0.0, 0.0, 0.02, 0.1]),
        "repetition_penalty": dice.choice([1.0, 1.0, 1.1, 1.3]),
        "presence_penalty": dice.choice([0.0, 0.0, 0.8]),
        "frequency_penalty": dice.choice([0.0, 0.0, 0.4]),
        "logit_bias": dice.choice([{}, {}, {280: 2.0, 5: -100.0, 33: 0.5}]),
        "stop": dice.choice([[], [], *STOPS]),
        "stop_token_ids": dice.choice([[], [], [], [290, 300]]),
        # Most go on to the last token: what is not computed is not compared.
        "ignore_eos": dice.random() < 0.9,
        "seed": dice.getrandbits(63),
    }
    return request(
        f"task {number}",
        dice.choice(PROMPTS),
        drafter="none",
        draft_length=0,
        max_tokens=tokens,
        logprobs=True,
        **sampling,
    )
