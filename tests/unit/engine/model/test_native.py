# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# torch and transformers declare some of their types in part only.
"""A whole native step: in float32 against transformers, and the same bits however it is cut."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from engine.kernels.build import NoKernelsError
from engine.loading.weights import Kind, quantised_int4
from engine.model.batch import Span
from tests import models
from tests.unit.engine.kernels.probes import ISAS
from tests.unit.engine.model.natives import native_runner, native_weights
from tests.unit.engine.model.test_llama import CONFIGS, LENGTH, TOLERANCE, runner_for, tokens_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from engine.loading.weights import WeightType
    from engine.model.native import NativeRunner

    Floats = NDArray[np.float32]

TYPES: list[WeightType] = ["float32", "bfloat16", "int8", "int4"]
ODD_SIZES = "odd sizes"
"""The one configuration whose hidden size the kernels do not take."""
LONG_CONTEXT = models.config(
    vocab_size=331,
    hidden_size=96,
    num_attention_heads=6,
    num_key_value_heads=2,
    intermediate_size=160,
    max_position_embeddings=2048,
)
TABLES = [list(range(40, 19, -1)), list(range(20))]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", [name for name in CONFIGS if name != ODD_SIZES])
def test_step_has_the_logits_of_transformers_and_of_torch(name: str, isa: str) -> None:
    """Two sequences side by side: prefill in chunks, a draft, single tokens, scattered blocks."""
    model: Any = models.random_model(CONFIGS[name], seed=4)
    runner, torch_runner = native_runner(model, isa=isa), runner_for(model)
    texts = [tokens_of(1), tokens_of(2)]
    tables = [list(range(19, 9, -1)), list(range(10))]
    ours: list[list[Floats]] = [[], []]
    start = 0
    for width in (70, 1, 9, 1, 16, 53):
        spans = [
            Span(text[start : start + width], start, table, 0)
            for text, table in zip(texts, tables, strict=True)
        ]
        logits = runner.run(spans).copy()
        theirs = torch_runner.run(spans).numpy()
        assert np.allclose(logits, theirs, atol=TOLERANCE, rtol=TOLERANCE)
        ours[0].append(logits[:width])
        ours[1].append(logits[width:])
        start += width
    assert start == LENGTH
    with torch.inference_mode():
        oracle = model(torch.tensor(texts)).logits.numpy()
    for number in (0, 1):
        whole = np.concatenate(ours[number])
        assert np.allclose(whole, oracle[number], atol=TOLERANCE, rtol=TOLERANCE)
    runner.close()


def test_step_gives_only_the_logits_asked_for() -> None:
    runner = native_runner(models.random_model(models.config(), seed=4))
    text = tokens_of(1, 20)
    every = runner.run([Span(text, 0, [0, 1], 0)]).copy()
    some = runner.run([Span(text, 0, [2, 3], 17), Span(text[:5], 0, [4], 5)]).copy()
    assert every.shape == (20, models.VOCAB)
    assert np.array_equal(some, every[17:])
    assert runner.run([Span(text, 0, [0, 1], 20)]).shape == (0, models.VOCAB)


def read(
    runner: NativeRunner, text: list[int], table: list[int], widths: list[int], company: int = 0
) -> Floats:
    """Logits of all tokens, read in spans of these widths in turn, each beside `company` others."""
    other = tokens_of(9, 30)
    parts: list[Floats] = []
    start = turn = 0
    while start < len(text):
        width = min(widths[turn % len(widths)], len(text) - start)
        spans = [Span(text[start : start + width], start, table, 0)]
        for number in range(company):
            count = 1 + (7 * turn + 3 * number) % 17
            spans.append(Span(other[:count], 0, [44 + 2 * number, 45 + 2 * number], 0))
        # The text's own span stands at another place each time.
        at = turn % len(spans)
        spans[0], spans[at] = spans[at], spans[0]
        first = sum(len(span.tokens) for span in spans[:at])
        parts.append(runner.run(spans)[first : first + width].copy())
        start += width
        turn += 1
    return np.concatenate(parts)


@pytest.mark.parametrize("matrices", TYPES)
def test_row_has_the_same_bits_however_the_step_is_cut(matrices: WeightType) -> None:
    """300 rows of 331 logits in each way: a fault in 1.3e-4 of the head's outputs alone is missed
    with probability (1 - 1.3e-4)^99,300 = 2.5e-6, one in any layer far less, since one wrong bit
    spreads over all logits of its row and of those after it.
    """
    model = models.random_model(LONG_CONTEXT, seed=3)
    text = [token % 331 for token in tokens_of(5, 300)]
    runner = native_runner(model, matrices, num_blocks=64)
    once = read(runner, text, TABLES[0], [300])
    for widths, company in (([1], 3), ([256, 44], 0), ([17, 2, 9, 31], 8), ([64, 3], 1)):
        again = read(runner, text, TABLES[1], widths, company)
        assert np.array_equal(once.view(np.uint32), again.view(np.uint32)), widths
    runner.close()
    for threads in (1, 3, 4, 7):
        for block_size in (16, 64):
            other = native_runner(
                model, matrices, threads=threads, num_blocks=64, block_size=block_size
            )
            again = read(other, text, TABLES[0], [41, 1, 8], company=2)
            assert np.array_equal(once.view(np.uint32), again.view(np.uint32)), threads
            other.close()


@pytest.mark.parametrize("isa", ISAS[1:])
@pytest.mark.parametrize("matrices", TYPES)
def test_instruction_sets_give_the_same_bits(isa: str, matrices: WeightType) -> None:
    model = models.random_model(LONG_CONTEXT, seed=3)
    text = [token % 331 for token in tokens_of(6, 200)]
    best, other = (
        read(native_runner(model, matrices, isa=one), text, TABLES[0], [60, 1, 9])
        for one in (ISAS[0], isa)
    )
    assert np.array_equal(best.view(np.uint32), other.view(np.uint32))


def test_step_is_the_same_far_into_a_text() -> None:
    model = models.random_model(LONG_CONTEXT, seed=3)
    text = [token % 331 for token in tokens_of(7, 2000)]
    runner = native_runner(model, "bfloat16", num_blocks=256)
    once = read(runner, text, list(range(125)), [256])
    again = read(runner, text, list(range(250, 125, -1)), [199, 1, 9, 100])
    assert np.array_equal(once.view(np.uint32), again.view(np.uint32))


@pytest.mark.parametrize("matrices", TYPES)
def test_span_that_is_no_number_is_named_and_spoils_no_other(matrices: WeightType) -> None:
    """A weight of infinity in one token's embedding: an input like any other, but no number."""
    model = models.random_model(LONG_CONTEXT, seed=3)
    weights = native_weights(model, matrices)
    embedding = weights["model.embed_tokens.weight"]
    spoilt = native_weights(model, "float32")["model.embed_tokens.weight"].values.copy()
    good = native_runner(model, weights=weights | {"model.embed_tokens.weight": embedding})
    spans = [
        Span([5, 6, 7], 0, [0], 0),
        Span([8, 9, 10, 11], 0, [1], 0),
        Span([12, 13], 0, [2], 0),
    ]
    before = good.run(spans).copy()
    assert good.broken == frozenset()
    for odd in (np.nan, np.inf):
        spoilt[9] = odd
        if embedding.scales is not None:
            scales = embedding.scales.copy()
            scales[9] = odd
            bad = embedding._replace(scales=scales)
        elif embedding.kind is Kind.BFLOAT16:
            bits = embedding.values.copy()
            bits[9] = np.float32(odd).view(np.uint32) >> 16
            bad = embedding._replace(values=bits)
        else:
            bad = embedding._replace(values=spoilt)
        runner = native_runner(model, weights=weights | {"model.embed_tokens.weight": bad})
        after = runner.run(spans).copy()
        assert runner.broken == frozenset({1})
        assert np.isnan(after[4:7]).all()
        assert np.array_equal(after[:3], before[:3]) and np.array_equal(after[7:], before[7:])
        # Its cache may be used again: nothing of it is left.
        table = [1]
        assert np.array_equal(runner.run([Span([5, 6, 7], 0, table, 0)]), before[:3])
        assert runner.broken == frozenset()


def test_layers_may_be_of_different_kinds() -> None:
    """As a GGUF file may have them: a first layer and a head in float32, the rest in int4."""
    model: Any = models.random_model(models.config(), seed=4)
    weights = native_weights(model, "float32")
    for name, weight in weights.items():
        if name.startswith("model.layers.1.") and weight.values.shape[0] > 1:
            weights[name] = quantised_int4(weight.values)
    text = tokens_of(1, 40)
    mixed = native_runner(model, weights=weights).run([Span(text, 0, [0, 1, 2], 0)]).copy()
    plain = native_runner(model).run([Span(text, 0, [0, 1, 2], 0)])
    similar = np.corrcoef(mixed.reshape(-1), plain.reshape(-1))[0, 1]
    assert 0.9 < similar < 1 - 1e-6


def test_parts_of_one_product_may_not_be_of_different_kinds() -> None:
    model = models.random_model(models.config(), seed=4)
    weights = native_weights(model, "float32")
    name = "model.layers.1.self_attn.k_proj.weight"
    weights[name] = quantised_int4(weights[name].values)
    with pytest.raises(NoKernelsError, match=r"layers\.1\.\* mixes"):
        native_runner(model, weights=weights)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hidden_size": 48, "num_attention_heads": 3, "num_key_value_heads": 1}, "hidden size 48"),
        ({"intermediate_size": 100}, "intermediate size 100"),
        ({"head_dim": 8}, "head size 8"),
    ],
)
def test_shape_that_kernels_do_not_take_is_refused_with_the_reason(
    changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(NoKernelsError, match=reason):
        native_runner(models.random_model(models.config(**changes), seed=4))


def test_missing_weight_is_named() -> None:
    model = models.random_model(models.config(), seed=4)
    weights = native_weights(model, "float32")
    del weights["model.layers.1.mlp.up_proj.weight"]
    with pytest.raises(KeyError, match=r"layers\.1\.mlp\.up_proj"):
        native_runner(model, weights=weights)


def test_parts_of_a_step_take_no_longer_than_all_of_it() -> None:
    runner = native_runner(models.random_model(models.config(), seed=4), threads=1)
    begin = time.perf_counter()
    runner.run([Span(tokens_of(1, 100), 0, list(range(7)), 0)])
    total = time.perf_counter() - begin
    parts = runner.last_parts()
    assert parts.pop("stalled") == 0
    assert parts.keys() == {"products", "attention", "rows"}
    assert min(parts.values()) > 0
    assert sum(parts.values()) <= total
