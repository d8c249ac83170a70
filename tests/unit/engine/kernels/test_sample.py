# pyright: reportUnknownMemberType=false
# torch declares some of its types in part only.
"""The kernels' sampler against its reference, engine/sampling/sampler.py, token by token."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import torch

from engine.kernels.library import LANES
from engine.sampling.noise import gumbel, philox_words
from engine.sampling.params import SamplingParams
from engine.sampling.sampler import Judged, Sampler, Verdict, masked
from tests import models
from tests.unit.engine.kernels.probes import ISAS, probe
from tests.unit.engine.model.natives import native_runner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from engine.model.native import NativeRunner
    from engine.sampling.grammar import Masks

    Floats = NDArray[np.float32]

VOCAB = 1003
"""No multiple of sixteen."""
ITEMS = 4200
ODD_SHARE = 0.03
"""Of rows that hold a value with which there is nothing to choose."""


@cache
def runner(isa: str = ISAS[0], threads: int = 4) -> NativeRunner:
    shape = models.config(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=1, head_dim=16)
    return native_runner(models.random_model(shape, seed=1), isa=isa, threads=threads)


class Case(NamedTuple):
    item: Judged
    logits: Floats  # [draft + 1, VOCAB]


def row_of(random: np.random.Generator) -> Floats:
    """Smooth, spiky, tied or flat; some with tokens ruled out, few with what is no number."""
    x = (random.choice([0.01, 1.0, 4.0, 40.0]) * random.standard_normal(VOCAB)).astype(np.float32)
    match int(random.integers(8)):
        case 0:
            x = np.rint(x)  # ties everywhere
        case 1:
            x[:] = x[0]
        case 2:
            x[random.random(VOCAB) < random.random()] = -np.inf
            x[random.integers(VOCAB)] = 1.0
        case _:
            pass
    if random.random() < ODD_SHARE:
        match int(random.integers(4)):
            case 0:
                x[:] = np.nan
            case 1:
                x[random.integers(VOCAB)] = np.nan
            case 2:
                x[random.integers(VOCAB)] = np.inf
            case _:
                x[:] = -np.inf
    return x


def params_of(random: np.random.Generator) -> SamplingParams:
    def sometimes(share: float, *values: Any) -> Any:
        return values[random.integers(len(values))] if random.random() < share else None

    biased = random.choice(VOCAB, 5, replace=False).tolist()
    values = [-100.0, 100.0, 0.3, -np.inf, -2.5]
    return SamplingParams(
        temperature=float(random.choice([0.0, 1e-6, 0.2, 0.7, 1.0, 1.3])),
        top_k=sometimes(0.3, 1, 2, 40, VOCAB - 1, VOCAB, VOCAB + 5, 0),
        top_p=sometimes(0.4, 0.0, 0.1, 0.5, 0.9, 0.999, 1.0),
        min_p=sometimes(0.3, 0.0, 0.02, 0.3, 1.0),
        repetition_penalty=sometimes(0.3, 1.3, 0.7, 1.1) or 1.0,
        presence_penalty=sometimes(0.3, 0.1, -0.7) or 0.0,
        frequency_penalty=sometimes(0.3, 0.3, 1.9, -0.1) or 0.0,
        logit_bias=dict(zip(biased, values, strict=True)) if random.random() < 0.3 else {},
        logprobs=bool(random.random() < 0.5),
    )


@cache
def cases() -> list[Case]:
    """Drafts up to five tokens long, most of them what the reference says."""
    random = np.random.default_rng(11)
    made: list[Case] = []
    for _ in range(ITEMS):
        sampler = Sampler(params_of(random), int(random.integers(1 << 63)), VOCAB)
        tokens = random.integers(0, VOCAB, random.integers(1, 40)).tolist()
        prompt = int(random.integers(1, len(tokens) + 1))
        length = int(random.integers(0, 6))
        logits = np.stack([row_of(random) for _ in range(length + 1)])
        masks = masks_of(random, length + 1) if random.random() < 0.4 else None
        draft: list[int] = []
        for number in range(length):
            history, position = tokens + draft, len(tokens) - prompt + number
            if np.isfinite(logits[number].max()) and random.random() < 0.9:
                with np.errstate(invalid="ignore"):
                    row = torch.from_numpy(logits[number])
                    row = row if masks is None else masked(row, masks[number])
                    draft.append(sampler.choose(row, history, prompt, position))
            else:
                draft.append(int(random.integers(VOCAB)))
        made.append(Case(Judged(sampler, tokens, prompt, draft, masks), logits))
    return made


def masks_of(random: np.random.Generator, rows: int) -> Masks:
    """Any share of the vocabulary, or one token alone, or (seldom) none."""
    allowed = random.random((rows, VOCAB)) < random.random((rows, 1)) ** 3
    for row in np.flatnonzero(random.random(rows) < 0.3):
        allowed[row] = False
        allowed[row, random.integers(VOCAB)] = random.random() < 0.98
    padded = np.pad(allowed, ((0, 0), (0, -VOCAB % 32)))
    return np.packbits(padded, axis=1, bitorder="little").view(np.uint32)


def expected(case: Case) -> Verdict:
    item = case.item
    return item.sampler.verify(
        torch.from_numpy(case.logits), item.tokens, item.prompt_length, item.draft, item.masks
    )


def judged(on: NativeRunner, some: Sequence[Case]) -> list[Verdict]:
    stride = -(-VOCAB // LANES) * LANES
    # What lies behind the vocabulary must not count.
    logits = np.full((sum(len(case.logits) for case in some), stride), 1e30, np.float32)
    logits[:, :VOCAB] = np.concatenate([case.logits for case in some])
    for case in some:
        case.item.sampler.native = None
    return on.judge(logits[:, :VOCAB], [case.item for case in some])


@pytest.mark.parametrize("isa", ISAS)
def test_verdicts_are_those_of_the_reference(isa: str) -> None:
    """At least 10,000 rows, all settings together. Log-probabilities to what the largest of single
    precision's exponentials may err.
    """
    rows = failed = 0
    for case, verdict in zip(cases(), judged(runner(isa), cases()), strict=True):
        with np.errstate(invalid="ignore"):
            reference = expected(case)
        assert verdict.tokens == reference.tokens, case.item.sampler.params
        assert verdict.accepted == reference.accepted
        assert verdict.failed == reference.failed
        assert (verdict.logprobs is None) == (reference.logprobs is None)
        if verdict.logprobs is not None and reference.logprobs is not None:
            assert np.allclose(verdict.logprobs, reference.logprobs, rtol=1e-6, atol=1e-6)
        rows += len(verdict.tokens) + verdict.failed
        failed += verdict.failed
    assert rows >= 10_000
    assert failed >= 100


def test_verdict_is_the_same_alone_and_for_any_number_of_threads() -> None:
    together = judged(runner(), cases())
    some = range(0, ITEMS, 7)
    assert [judged(runner(), [cases()[n]])[0] for n in some] == [together[n] for n in some]
    for threads in (1, 2, 7):
        assert judged(runner(threads=threads), cases()) == together


@pytest.mark.parametrize("isa", ISAS[1:])
def test_instruction_sets_give_the_same_verdicts(isa: str) -> None:
    """Log-probabilities bit for bit."""
    assert judged(runner(isa), cases()) == judged(runner(), cases())


@pytest.mark.parametrize("odd", [np.nan, np.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_row_that_is_no_number_fails_its_sequence_alone(odd: float, temperature: float) -> None:
    random = np.random.default_rng(5)

    def case(seed: int) -> Case:
        sampler = Sampler(SamplingParams(temperature=temperature), seed, VOCAB)
        return Case(Judged(sampler, [1], 1, []), random.standard_normal((1, VOCAB), np.float32))

    some = [case(seed) for seed in range(5)]
    good = judged(runner(), some)
    for place in (0, 15, 16, 992, 1002):
        some[2].logits[0, place] = odd
        spoilt = judged(runner(), some)
        some[2].logits[0, place] = 0.0
        assert spoilt[2] == Verdict([], 0, None, failed=True)
        assert spoilt[:2] == good[:2] and spoilt[3:] == good[3:]


@pytest.mark.parametrize("seed", [0, 1, 2**63, 2**64 - 1, 123456789])
@pytest.mark.parametrize("position", [0, 1, 7, 100_000])
def test_noise_is_of_the_same_words_as_numpys(seed: int, position: int) -> None:
    words = np.empty(1600, np.uint32)
    probe().call("words", ctypes.c_uint64(seed), ctypes.c_uint64(position), words, 200)
    assert np.array_equal(words, philox_words(seed, position, 1600))


def test_noise_is_numpys_and_never_more_than_its_bound() -> None:
    """The bound decides which tokens are looked at: below the noise, it would lose a winner."""
    ones = [(0xFFFFFFFF << shift) & 0xFFFFFFFF for shift in range(33)]
    edges = [word + offset for word in ones for offset in (-1, 0, 1)]
    special = np.array([word for word in edges if 0 <= word < 1 << 32], np.uint32)
    random = np.random.default_rng(8).integers(0, 1 << 32, 200_000, dtype=np.uint32)
    words = np.concatenate([special, random, ~(random >> 16)]).astype(np.uint32)
    noise, bound = np.empty(len(words)), np.empty(len(words))
    probe().call("gumbel", words, noise, bound, len(words))
    assert np.allclose(noise, gumbel(words), rtol=1e-14, atol=1e-14)
    assert (noise <= bound).all()
    assert noise.max() < 23.6  # what draw() takes for the most there is
