"""One text in all ways, with the embedded model as it is served and two threads."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.loading.pull import EMBEDDED_MODEL
from tests.exactness.mixture import LONG, assert_same, drafting, mixed_requests
from tests.generation import Generation, Transcript, engine_on, generate, request, scheduler_of

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
        for drafter, length in (("none", 0), ("ngram", 8), ("head", 5), ("combined", 8)):
            stream = f"a{n}{drafter}"
            start = request(stream, prompt, seed=n, drafter=drafter, draft_length=length, **usual)
            alone = generate(engine, start)[stream]
            assert alone.text == together[f"b{n}"].text
            assert alone.ids == together[f"b{n}"].ids


def test_text_is_the_same_for_16_mixed_requests_in_company() -> None:
    """Prompts up to 400 tokens in chunks, drafts of every length, few blocks, a warm cache."""
    starts = mixed_requests()
    for number in (2, 5, 9):
        starts[number] = msgspec.structs.replace(starts[number], prompt=LONG * 6 + str(number))
    starts = [
        msgspec.structs.replace(s, sampling=s.sampling.limited(12 if s.prompt == "A" else 20))
        for s in starts
    ]
    plain = engine_on(EMBEDDED_MODEL, threads=2, prefix_cache=False)
    alone: dict[str, Transcript] = {}
    for start in drafting(starts, ["none"], [0]):
        alone |= generate(plain, start)
    engine = engine_on(EMBEDDED_MODEL, threads=2, kv_blocks=32, max_step_tokens=100)
    generation = Generation(engine)
    generation.start(*drafting(starts[:8], ["head", "none", "combined"], range(9)))
    sequences = list(scheduler_of(engine).sequences())
    streams = generation.run({6: drafting(starts[8:], ["ngram", "head"], range(8, -1, -1))})
    assert_same(streams, alone)
    assert_same(generate(engine, *reversed(drafting(starts, ["combined", "head"], [5]))), alone)
    assert sum(sequence.preemptions for sequence in sequences) > 0
    assert sum(stream.counts.accepted for stream in streams.values()) > 0
