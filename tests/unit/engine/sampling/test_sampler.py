"""Processors against naive references in double precision; the rule against its definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.sampling.noise import gumbel, philox_words
from engine.sampling.params import SamplingParams
from engine.sampling.sampler import Sampler, top_k, top_p

VOCAB = 4000
"""More than the nucleus looks at first, so that each depth is reached by some case."""


def sampler(vocab: int = VOCAB, seed: int = 3, **params: Any) -> Sampler:
    settings: dict[str, Any] = {"temperature": 0.0, **params}
    return Sampler(SamplingParams(**settings), seed, vocab)


def row(seed: int = 0, vocab: int = VOCAB, spread: float = 3.0) -> torch.Tensor:
    return torch.randn(vocab, generator=torch.Generator().manual_seed(seed)) * spread


@pytest.mark.parametrize("spread", [0.01, 1.0, 5.0, 40.0])
@pytest.mark.parametrize("mass", [0.05, 0.5, 0.9, 0.999])
def test_top_p_keeps_the_fewest_tokens_that_reach_the_mass(spread: float, mass: float) -> None:
    x = row(1, spread=spread).numpy()
    kept = top_p(x, mass).tolist()
    weights = np.exp(x.astype(np.float64) - float(x.max()))
    share = weights[kept].sum() / weights.sum()
    least = weights[kept].min() / weights.sum()
    # Sums in another order may differ in their last bits: one token more or less at the edge.
    assert share >= mass * (1 - 1e-6)
    assert share - least <= mass * (1 + 1e-6)
    assert min(x[kept]) >= max(np.delete(x, kept), default=-np.inf)


def test_top_p_prefers_the_lower_index_among_equals() -> None:
    x = np.zeros(10, np.float32)
    assert top_p(x, 0.35).tolist() == [0, 1, 2, 3]


@given(
    st.lists(st.integers(-60, 10), min_size=1, max_size=40),
    st.integers(1, 50),
)
def test_top_k_keeps_the_largest_and_the_lower_index_among_equals(
    values: list[int], k: int
) -> None:
    x = np.array(values, np.float32)
    k = min(k, len(values))
    expected = sorted(sorted(range(len(values)), key=lambda i: (-values[i], i))[:k])
    assert top_k(x, k).tolist() == expected


@pytest.mark.parametrize(
    ("params", "allowed"),
    [
        ({"top_k": 2}, {1, 3}),
        ({"top_p": 0.5}, {1}),
        ({"min_p": 0.3}, {1, 3}),
        ({"top_k": 3, "min_p": 0.05}, {0, 1, 3}),
        ({"top_k": 2, "top_p": 0.99}, {1, 3}),
    ],
)
def test_sampler_chooses_only_what_restrictions_leave(
    params: dict[str, Any], allowed: set[int]
) -> None:
    logits = torch.tensor([1.0, 3.0, -2.0, 2.0, -9.0])
    seen = {
        sampler(5, seed, temperature=1.0, **params).choose(logits, [0], 1, 0) for seed in range(400)
    }
    assert seen == allowed


def test_sampler_takes_the_argmax_of_logits_and_noise() -> None:
    logits = row(2)
    for position in range(5):
        noise = gumbel(philox_words(3, position, VOCAB))
        expected = int((logits.numpy() / np.float32(0.7) + noise).argmax())
        assert sampler(temperature=0.7).choose(logits, [0], 1, position) == expected


@pytest.mark.parametrize("temperature", [0.0, 1e-46, 1e-30])
def test_sampler_is_greedy_at_no_temperature(temperature: float) -> None:
    logits = torch.tensor([0.0, 2.0, 2.0, -1.0])
    chosen = sampler(4, temperature=temperature, min_p=0.1, top_p=0.9).choose(logits, [0], 1, 0)
    assert chosen == 1, "the lowest of the largest"


def test_penalties_follow_their_definitions() -> None:
    logits = torch.tensor([2.0, -2.0, 1.0, 1.9])
    history = [0, 1, 2, 2]
    repetition = sampler(4, repetition_penalty=2.0)
    assert repetition.choose(logits, history, 1, 3) == 3, "2.0 is halved, prompt included"
    presence = sampler(4, presence_penalty=0.2)
    assert presence.choose(logits, [0, 3], 1, 1) == 0, "3 was said, the prompt does not count"
    # Twice said costs twice: 1.9 - 2·0.6 < 1.0 would not hold for once.
    frequency = sampler(4, frequency_penalty=0.6, logit_bias={0: -100.0})
    assert frequency.choose(logits, [0, 3], 1, 1) == 3
    assert frequency.choose(logits, [0, 3, 3], 1, 2) == 2


def test_logit_bias_moves_the_choice_and_leaves_the_logits() -> None:
    logits = torch.tensor([2.0, 1.0])
    assert sampler(2, logit_bias={1: 5.0}).choose(logits, [0], 1, 0) == 1
    assert torch.equal(logits, torch.tensor([2.0, 1.0]))


def test_verdict_accepts_until_the_first_disagreement() -> None:
    logits = torch.tensor([[0.0, 9.0, 0.0], [9.0, 0.0, 0.0], [0.0, 0.0, 9.0]])
    judge = sampler(3)
    assert judge.verify(logits, [0], 1, [1, 0])[:2] == ([1, 0, 2], 2), "bonus"
    assert judge.verify(logits, [0], 1, [1, 2])[:2] == ([1, 0], 1), "recovered"
    assert judge.verify(logits, [0], 1, [2, 0])[:2] == ([1], 0), "nothing after a rejection"
    assert judge.verify(logits[:1], [0], 1, [])[:2] == ([1], 0)


def test_each_draft_row_is_penalised_for_its_own_prefix() -> None:
    logits = torch.tensor([[0.0, 9.0, 8.5]] * 3)
    judge = sampler(3, presence_penalty=1.0)
    assert judge.verify(logits, [0], 1, [1, 2]).tokens == [1, 2, 1]


def test_logprobs_are_those_of_the_model_before_temperature() -> None:
    logits = row(4, 50)
    verdict = sampler(50, temperature=0.3, top_k=1, logprobs=True).verify(
        logits.unsqueeze(0), [0], 1, []
    )
    expected = torch.log_softmax(logits.double(), 0)[verdict.tokens[0]]
    assert verdict.logprobs == [pytest.approx(float(expected), abs=1e-6)]
