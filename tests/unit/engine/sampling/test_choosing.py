# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# torch declares some of its types in part only.
"""Tensor code against the sampler it stands for: same logits, same seed, same token."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from engine.kernels.device import Reference
from engine.model.llama import ModelShape
from engine.sampling.choosing import (
    NO_TOP_P,
    Asked,
    Kind,
    Penalties,
    agreed,
    biased,
    choose,
    logprobs,
    masked,
    penalised,
)
from engine.sampling.params import SamplingParams
from engine.sampling.sampler import Sampler
from engine.sampling.sampler import masked as masked_by_numpy

VOCAB, ROWS = 700, 24
SHAPE = ModelShape(VOCAB, 64, 128, 2, 4, 2, 16, 1e-5, 512)
KERNELS = Reference(SHAPE, torch.bmm, tile_rows=4)


def rows(seed: int = 0, spread: float = 3.0) -> torch.Tensor:
    x = torch.randn(ROWS, VOCAB, generator=torch.Generator().manual_seed(seed)) * spread
    # As bfloat16 gives them: with ties, also at the edges.
    return x.bfloat16().float()


def asked_by(samplers: list[Sampler], positions: list[int]) -> Asked:
    params = [sampler.params for sampler in samplers]
    return Asked(
        seed=torch.tensor([s.seed for s in samplers]),
        position=torch.tensor(positions),
        temperature=torch.tensor([1.0 if s.greedy else s.temperature for s in samplers]),
        greedy=torch.tensor([s.greedy for s in samplers]),
        top_k=torch.tensor([p.top_k or VOCAB for p in params]),
        top_p=torch.tensor(
            [NO_TOP_P if p.top_p is None else p.top_p for p in params], dtype=torch.float64
        ),
        least=torch.tensor([math.log(p.min_p) if p.min_p else -math.inf for p in params]),
    )


PARAMS: list[dict[str, Any]] = [
    {"temperature": 0.0},
    {"temperature": 1.0},
    {"temperature": 0.7, "top_k": 1},
    {"temperature": 1.3, "top_k": 40},
    {"temperature": 0.8, "top_p": 0.9},
    {"temperature": 2.0, "top_p": 0.999},
    {"temperature": 1.0, "min_p": 0.05},
    {"temperature": 0.9, "top_k": 50, "top_p": 0.8, "min_p": 0.02},
    {"temperature": 1.0, "top_p": 1.0, "top_k": 5000},
]


@pytest.mark.parametrize("spread", [0.2, 3.0, 30.0])
@pytest.mark.parametrize("params", PARAMS)
def test_rows_get_the_tokens_that_the_sampler_chooses(
    params: dict[str, Any], spread: float
) -> None:
    x = rows(2, spread)
    samplers = [Sampler(SamplingParams(**params), seed, VOCAB) for seed in range(ROWS)]
    positions = list(range(100, 100 + ROWS))
    kind = Kind(noisy=True, restricted=True)
    found = choose(x, asked_by(samplers, positions), kind, KERNELS).tolist()
    wanted = [s.choose(x[n], [], 0, positions[n]) for n, s in enumerate(samplers)]
    assert found == wanted


def test_rows_of_all_kinds_are_chosen_side_by_side_as_alone() -> None:
    x = rows(3)
    samplers = [Sampler(SamplingParams(**PARAMS[n % len(PARAMS)]), n, VOCAB) for n in range(ROWS)]
    asked = asked_by(samplers, list(range(ROWS)))
    kind = Kind(noisy=True, restricted=True)
    together = choose(x, asked, kind, KERNELS).tolist()
    alone = [
        choose(x[n : n + 1], Asked(*(a[n : n + 1] for a in asked)), kind, KERNELS).item()
        for n in range(ROWS)
    ]
    assert together == alone
    assert together == [s.choose(x[n], [], 0, n) for n, s in enumerate(samplers)]


def test_penalties_bias_and_masks_are_those_of_the_sampler() -> None:
    x = rows(4)
    draw = np.random.default_rng(5)
    history = draw.integers(0, VOCAB, 60).tolist() * 2
    bias = {3: 2.5, 400: -100.0}
    sampler = Sampler(
        SamplingParams(
            temperature=0.8,
            repetition_penalty=1.3,
            presence_penalty=0.5,
            frequency_penalty=0.25,
            logit_bias=bias,
        ),
        7,
        VOCAB,
    )
    prompt = 80
    tokens = torch.tensor([[*history, VOCAB, VOCAB]]).expand(ROWS, -1)
    penalties = Penalties(
        history=tokens,
        completion=torch.arange(tokens.shape[1]).expand_as(tokens) >= prompt,
        repetition=torch.full((ROWS,), 1.3),
        presence=torch.full((ROWS,), 0.5, dtype=torch.float64),
        frequency=torch.full((ROWS,), 0.25, dtype=torch.float64),
    )
    words = draw.integers(0, 2**32, (ROWS, -(-VOCAB // 32)), dtype=np.uint32)
    ids = torch.tensor([[*bias, VOCAB]]).expand(ROWS, -1)
    values = torch.tensor([[*bias.values(), 0.0]]).expand(ROWS, -1)
    allowed = masked(x, torch.from_numpy(words.view(np.int32)))
    y = biased(penalised(allowed, penalties), ids, values)
    asked = asked_by([sampler] * ROWS, list(range(40, 40 + ROWS)))
    found = choose(y, asked, Kind(noisy=True, restricted=False), KERNELS).tolist()
    wanted = [
        sampler.choose(masked_by_numpy(x[n], words[n]), history, prompt, 40 + n)
        for n in range(ROWS)
    ]
    assert found == wanted


def test_rows_count_up_to_the_first_that_disagrees_with_its_draft() -> None:
    # Three sequences: a wrong second draft, a fully accepted one, one without a draft.
    tokens = torch.tensor([5, 6, 7, 8, 1, 2, 9])
    follows = torch.tensor([5, 0, 7, -1, 1, -1, -1])
    first = torch.tensor([0, 0, 0, 0, 4, 4, 6])
    assert agreed(tokens, follows, first).tolist() == [True, True, False, False, True, True, True]


def test_logprobs_are_those_of_the_model() -> None:
    x = rows(6)
    tokens = torch.arange(ROWS)
    wanted = torch.log_softmax(x.double(), 1).gather(1, tokens[:, None])[:, 0]
    torch.testing.assert_close(logprobs(x.bfloat16(), tokens), wanted, atol=1e-6, rtol=0)
