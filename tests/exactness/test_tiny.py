"""In exact mode the text for a seed is the same bytes, whatever stands around it.

The reference is the plainest run there is: each request alone, no drafter, no prefix cache. All
comparisons include every token's log-probability, so that a difference in the logits' last bits
shows even where it changes no token.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
import pytest

from tests.exactness.mixture import assert_same, drafting, mixed_requests
from tests.generation import Generation, Transcript, engine_on, generate, request, scheduler_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from engine.engine import Engine
    from engine.frames import Start

TEMPERATURES = [0.0, 0.7, 1.3]
LENGTHS = range(9)
SOME_LENGTHS = {"bfloat16": LENGTHS, "float32": (0, 1, 4, 8)}
"""Drafted alone; in batches every request has another length, in both types."""
EngineMaker: TypeAlias = "Callable[..., Engine]"
References: TypeAlias = "dict[str, Transcript]"


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def dtype(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def make(tiny: Path, near: Path, tiny_head: Path, dtype: str) -> EngineMaker:
    usual = {"dtype": dtype, "draft_model": str(near), "draft_head": str(tiny_head)}

    def engine(**settings: Any) -> Engine:
        return engine_on(tiny, **(usual | settings))

    return engine


@pytest.fixture(scope="module")
def plain(make: EngineMaker) -> Engine:
    return make(prefix_cache=False, draft_model=None, draft_head=None, drafter="none")


@pytest.fixture(scope="module")
def drafting_engine(make: EngineMaker) -> Engine:
    """Shared by tests of this module: its prefix cache is as warm as they left it."""
    return make()


@pytest.fixture(scope="module")
def references(plain: Engine) -> References:
    """The mixed requests, each alone."""
    alone: References = {}
    for start in drafting(mixed_requests(), ["none"], [0]):
        alone |= generate(plain, start)
    reasons = {transcript.reason for transcript in alone.values()}
    assert reasons == {"stop", "length"}
    return alone


def accepted(streams: References) -> tuple[int, int]:
    """Tokens accepted and tokens rejected."""
    hits = sum(t.counts.accepted for t in streams.values())
    return hits, sum(t.counts.drafted for t in streams.values()) - hits


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_text_is_the_same_for_every_drafter_and_length(
    plain: Engine, drafting_engine: Engine, dtype: str, temperature: float
) -> None:
    usual: dict[str, Any] = {
        "max_tokens": 40,
        "temperature": temperature,
        "seed": 11,
        "logprobs": True,
        "top_logprobs": 2,
        "ignore_eos": True,
    }
    prompt = "The ink is wet, the ink is dry; the ink is"
    expected = generate(plain, request("s", prompt, drafter="none", **usual))
    text = expected["s"].text
    # Right at first, then wrong, then right again: something to accept and something to reject.
    prediction = text[: len(text) // 2] + " a guess " + text[len(text) // 2 :]
    for drafter in ("none", "ngram", "head", "combined", "model"):
        total = [0, 0]
        for length in SOME_LENGTHS[dtype]:
            start = request(
                "s", prompt, drafter=drafter, draft_length=length, prediction=prediction, **usual
            )
            streams = generate(drafting_engine, start)
            assert_same(streams, expected)
            hits, misses = accepted(streams)
            total = [total[0] + hits, total[1] + misses]
            assert (hits + misses > 0) == (drafter != "none" and length > 0)
            assert streams["s"].drafts == 0 or streams["s"].counts.steps < 40 or hits == 0
        if drafter == "head":
            assert total[1] > 0
        else:
            assert all(total) or drafter == "none", "drafts were accepted, and drafts were rejected"


def test_texts_differ_between_seeds_and_temperatures(plain: Engine) -> None:
    """Or all the other tests would pass on a model with one thing to say."""
    starts = [
        request(f"{t} {seed}", "The ink is", temperature=t, seed=seed, max_tokens=20)
        for t in TEMPERATURES
        for seed in (1, 2, 3)
    ]
    texts = {name: t.text for name, t in generate(plain, *starts).items()}
    assert len(set(texts.values())) == 7, "greedy ones are the same, the others all differ"


def _orders(starts: Sequence[Start]) -> dict[str, dict[int, list[Start]]]:
    """Ways for the requests to come in, by step."""
    shuffled = list(starts)
    random.Random(5).shuffle(shuffled)
    steps = random.Random(6)
    scattered: dict[int, list[Start]] = {}
    for start in shuffled:
        scattered.setdefault(steps.randrange(30), []).append(start)
    return {
        "in order": {0: list(starts)},
        "backwards": {0: list(reversed(starts))},
        "one per step": {number: [start] for number, start in enumerate(shuffled)},
        "any time": scattered,
    }


DRAFTERS: dict[str, Sequence[str]] = {
    "none": ["none"],
    "ngram": ["ngram"],
    "suffix": ["suffix"],
    "model": ["model"],
    "head": ["head", "combined"],
    "mixed": ["model", "head", "ngram", "suffix", "combined", "none"],
}


@pytest.mark.parametrize(
    ("drafters", "order"),
    [
        ("none", "any time"),
        ("ngram", "any time"),
        ("model", "any time"),
        ("mixed", "any time"),
        ("mixed", "in order"),
        ("mixed", "backwards"),
        ("mixed", "one per step"),
    ],
)
def test_text_is_the_same_in_a_batch_of_16_in_any_arrival_order(
    drafting_engine: Engine, references: References, drafters: str, order: str
) -> None:
    starts = drafting(mixed_requests(), DRAFTERS[drafters], LENGTHS)
    streams = Generation(drafting_engine).run(_orders(starts)[order])
    assert_same(streams, references)
    hits, misses = accepted(streams)
    assert (hits > 0 and misses > 0) or drafters == "none"


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_text_is_the_same_alone_and_in_a_batch_at_one_temperature(
    plain: Engine, drafting_engine: Engine, temperature: float
) -> None:
    starts = mixed_requests(temperature=temperature)
    alone: References = {}
    for start in drafting(starts, ["none"], [0]):
        alone |= generate(plain, start)
    assert_same(generate(drafting_engine, *drafting(starts, ["model", "ngram"], [8, 3])), alone)


VARIATIONS: dict[str, dict[str, Any]] = {
    "prompts in chunks of 5": {"max_step_tokens": 5},
    "prompts in chunks of 40": {"max_step_tokens": 40},
    "three at a time": {"max_sequences": 3},
    "blocks of 32": {"block_size": 32},
    "blocks of 64, no cache": {"block_size": 64, "prefix_cache": False},
    "draft length by measurement": {"adaptive_draft": True},
    "two threads": {"threads": 2},
}


@pytest.mark.parametrize("variation", VARIATIONS)
def test_text_is_the_same_under_other_settings(
    make: EngineMaker, references: References, variation: str
) -> None:
    engine = make(**VARIATIONS[variation])
    starts = drafting(mixed_requests(), DRAFTERS["mixed"], LENGTHS)
    assert_same(Generation(engine).run(_orders(starts)["any time"]), references)


@pytest.mark.parametrize("prefix_cache", [True, False])
def test_text_is_the_same_under_preemption(
    make: EngineMaker, references: References, prefix_cache: bool
) -> None:
    """Blocks for about three of the sixteen."""
    engine = make(kv_blocks=20, prefix_cache=prefix_cache)
    starts = [
        msgspec.structs.replace(start, priority=number % 3)
        for number, start in enumerate(drafting(mixed_requests(), DRAFTERS["mixed"], LENGTHS))
    ]
    generation = Generation(engine)
    generation.start(*starts)
    sequences = list(scheduler_of(engine).sequences())
    assert_same(generation.run(), references)
    preempted = [s for s in sequences if s.preemptions]
    assert len(preempted) >= 3
    assert any(s.drafter == "model" and s.accepted for s in preempted), "with a draft cache to lose"


def test_text_is_the_same_with_a_warm_prefix_cache(
    make: EngineMaker, references: References
) -> None:
    engine = make()
    starts = drafting(mixed_requests(), DRAFTERS["mixed"], LENGTHS)
    cold = generate(engine, *starts)
    warm = generate(engine, *reversed(starts))
    assert_same(cold, references)
    assert_same(warm, references)

    def cached(streams: References) -> int:
        return sum(t.counts.cached_prompt for t in streams.values())

    assert cached(warm) > cached(cold)


def test_text_goes_on_where_another_engine_stopped(
    plain: Engine, drafting_engine: Engine, references: References
) -> None:
    """After each of the first steps and some of the later ones."""
    for start in drafting(mixed_requests(), ["model", "ngram"], [4, 8]):
        whole = references[start.stream]
        died = [
            msgspec.structs.replace(
                start,
                stream=f"{start.stream} {cut}",
                committed=whole.ids[:cut],
                committed_chars=sum(token.n for token in whole.tokens[:cut]),
            )
            for cut in sorted({cut for cut in whole.cuts if cut < 4 or cut % 9 == 0})
        ]
        undrafted = [msgspec.structs.replace(s, drafter="none") for s in died[::3]]
        for engine, starts in ((drafting_engine, died), (plain, undrafted)):
            for stream, rest in generate(engine, *starts).items():
                cut = int(stream.split()[1])
                before = whole.text[: sum(token.n for token in whole.tokens[:cut])]
                assert before + rest.text == whole.text, stream
                assert whole.tokens[:cut] + rest.tokens == whole.tokens, stream
                assert rest.reason == whole.reason, stream


def test_a_draft_model_with_the_same_weights_is_always_right(
    tiny: Path, make: EngineMaker, references: References
) -> None:
    """Same bits, same noise, same token: drafts fail only where the text ends."""
    engine = make(draft_model=str(tiny))
    streams = generate(engine, *drafting(mixed_requests(), ["model"], [5]))
    assert_same(streams, references)
    for stream, transcript in streams.items():
        assert transcript.counts.drafted - transcript.counts.accepted <= 5, stream
    assert accepted(streams)[0] > 300
