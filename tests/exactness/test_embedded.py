"""One text in all ways, with the embedded model in bfloat16 and two threads."""

from __future__ import annotations

from typing import Any

import pytest

from engine.pull import EMBEDDED_MODEL
from tests.generation import engine_on, generate, request

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PROMPTS = [
    "The lighthouse stood",
    "def fibonacci(n):\n",
    "1, 2, 3, 4, 5, 6,",
    "The quick brown fox jumps over the lazy dog. The quick brown fox",
    "A list of European countries: Germany, France, Spain,",
    "Roses are red, violets are blue,",
]


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.3])
def test_text_is_the_same_alone_in_a_batch_and_with_any_drafts(temperature: float) -> None:
    engine = engine_on(EMBEDDED_MODEL, threads=2, draft_length=8, kv_blocks=200)
    usual: dict[str, Any] = {"temperature": temperature, "max_tokens": 24, "ignore_eos": True}
    together = generate(
        engine,
        *[
            request(f"b{n}", prompt, seed=n, draft_length=n, prediction=prompt, **usual)
            for n, prompt in enumerate(PROMPTS)
        ],
    )
    for n, prompt in enumerate(PROMPTS):
        for drafter, length in (("none", 0), ("ngram", 8)):
            stream = f"a{n}{drafter}"
            start = request(stream, prompt, seed=n, drafter=drafter, draft_length=length, **usual)
            alone = generate(engine, start)[stream]
            assert alone.text == together[f"b{n}"].text
            assert alone.ids == together[f"b{n}"].ids
