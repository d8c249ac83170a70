# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# torch and transformers declare some of their types in part only.
"""The forward pass against transformers' own, in float32, over every kind of Llama we serve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from engine.errors import EngineConfigError
from engine.loading.parts import build_model, model_shape
from engine.model.batch import Span
from engine.model.kv_cache import KVCache
from engine.model.runner import Runner
from tests import models

if TYPE_CHECKING:
    from transformers import LlamaConfig, MistralConfig

SIZE = 16
LENGTH = 150
TOLERANCE = 1e-4


def scaled(kind: str, **settings: Any) -> LlamaConfig:
    return models.config(rope_parameters={"rope_type": kind, "rope_theta": 10000.0} | settings)


CONFIGS: dict[str, LlamaConfig | MistralConfig] = {
    "grouped heads": models.config(),
    "one head per key": models.config(num_key_value_heads=4),
    "tied embeddings": models.config(tie_word_embeddings=True),
    "biases": models.config(attention_bias=True),
    "odd sizes": models.config(hidden_size=48, num_attention_heads=3, num_key_value_heads=1),
    "mistral with its own head size": models.mistral_config(),
    "theta": scaled("default", rope_theta=500.0),
    "linear rope": scaled("linear", factor=4.0),
    "dynamic rope": scaled("dynamic", factor=4.0),
    "llama 3 rope": scaled(
        "llama3",
        factor=8.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=64,
    ),
    "yarn rope": scaled("yarn", factor=8.0, original_max_position_embeddings=64),
}


def runner_for(model: Any, *, exact: bool = True) -> Runner:
    shape = model_shape(model.config)
    tensors = dict(model.state_dict())
    if model.config.tie_word_embeddings:
        del tensors["lm_head.weight"]
    cache = KVCache(
        layers=shape.layers,
        num_blocks=24,
        block_size=SIZE,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )
    return Runner(build_model(model.config, tensors, exact=exact), cache)


def tokens_of(seed: int, length: int = LENGTH) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, models.VOCAB, (length,), generator=generator).tolist()


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("name", CONFIGS)
def test_model_has_the_logits_of_transformers(name: str, exact: bool) -> None:
    """Two sequences side by side: prefill in chunks, a draft, single tokens, scattered blocks."""
    model: Any = models.random_model(CONFIGS[name], seed=4)
    runner = runner_for(model, exact=exact)
    texts = [tokens_of(1), tokens_of(2)]
    tables = [list(range(19, 9, -1)), list(range(10))]
    ours: list[list[torch.Tensor]] = [[], []]
    start = 0
    for width in (70, 1, 9, 1, 16, 53):
        spans = [
            Span(text[start : start + width], start, table, 0)
            for text, table in zip(texts, tables, strict=True)
        ]
        logits = runner.run(spans)
        for number, part in enumerate(logits.split(width)):
            ours[number].append(part)
        start += width
    assert start == LENGTH
    with torch.inference_mode():
        theirs = model(torch.tensor(texts)).logits
    for number in (0, 1):
        torch.testing.assert_close(
            torch.cat(ours[number]), theirs[number], atol=TOLERANCE, rtol=TOLERANCE
        )


def test_model_returns_only_the_logits_asked_for() -> None:
    runner = runner_for(models.random_model(models.config(), seed=4))
    text = tokens_of(1, 20)
    every = runner.run([Span(text, 0, [0, 1], 0)])
    some = runner.run([Span(text, 0, [2, 3], 17), Span(text[:5], 0, [4], 5)])
    assert every.shape == (20, models.VOCAB)
    assert torch.equal(some, every[17:])


def test_rope_whose_frequencies_change_with_length_is_refused() -> None:
    factors = [1.0] * 8
    longrope = scaled(
        "longrope",
        factor=4.0,
        short_factor=factors,
        long_factor=factors,
        original_max_position_embeddings=128,
    )
    model = models.random_model(longrope, seed=4)
    with pytest.raises(EngineConfigError, match="longrope") as caught:
        build_model(longrope, dict(model.state_dict()), exact=True)
    assert caught.value.param == "model"


def test_model_names_the_weight_that_is_missing() -> None:
    model = models.random_model(models.config(), seed=4)
    tensors = dict(model.state_dict())
    del tensors["model.layers.1.mlp.up_proj.weight"]
    with pytest.raises(KeyError, match=r"layers\.1\.mlp\.up_proj"):
        build_model(models.config(), tensors, exact=False)


def test_runner_profiles_a_context_shorter_than_usual() -> None:
    runner = runner_for(models.random_model(models.config(max_position_embeddings=32), seed=4))
    cost = runner.profile(24)
    assert 0 < cost(1) <= cost(8) <= cost(64) < cost(128)
