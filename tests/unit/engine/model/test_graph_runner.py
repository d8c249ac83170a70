# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# torch and transformers declare some of their types in part only.
"""Steps over fixed buffers: right whatever they are filled up to, the same bits in any company."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from engine.errors import IntegrityError
from engine.model.batch import Span
from engine.model.graph_runner import row_counts
from engine.sampling.params import SamplingParams
from engine.sampling.sampler import Judged, Sampler, Verdict
from tests import models
from tests.unit.engine.model.graphed import BLOCK, graph_runner, loaded, model_of
from tests.unit.engine.model.test_llama import runner_for, tokens_of

if TYPE_CHECKING:
    from engine.model.graph_runner import GraphRunner
    from engine.model.runner import Runner

CONFIGS: dict[str, Any] = {
    "grouped heads": models.config(),
    "biases and tied embeddings": models.config(attention_bias=True, tie_word_embeddings=True),
    "odd sizes": models.config(hidden_size=48, num_attention_heads=3, num_key_value_heads=1),
}
FIRST, SECOND = [3, 9, 1, 20, 7, 11, 2], [5, 0, 17, 4, 6, 8]


def prompt(runner: GraphRunner | Runner, seed: int, length: int, table: list[int]) -> list[int]:
    """Compute `length` tokens of a text in two chunks; the text and two tokens more."""
    text = tokens_of(seed, length + 8)
    half = length // 2
    runner.run([Span(text[:half], 0, table, half)])
    runner.run([Span(text[half:length], half, table, length - half)])
    return text


@pytest.mark.parametrize("name", CONFIGS)
def test_steps_have_the_logits_of_the_cpus_runner(name: str) -> None:
    model = model_of(CONFIGS[name])
    ours, theirs = graph_runner(loaded(model, exact=False)), runner_for(model, exact=False)
    for runner in (ours, theirs):
        prompt(runner, 1, 90, FIRST)
        prompt(runner, 2, 33, SECOND)
    first, second = tokens_of(1, 98), tokens_of(2, 41)
    spans = [
        Span(first[90:95], 90, FIRST, 0),
        Span(second[33:41], 33, SECOND, 7),
    ]
    torch.testing.assert_close(ours.run(spans), theirs.run(spans), atol=1e-4, rtol=1e-4)


def test_a_row_has_the_same_bits_in_every_step_in_exact_mode() -> None:
    runner = graph_runner(loaded(model_of(models.config()), exact=True))
    text = prompt(runner, 1, 90, FIRST)
    other = prompt(runner, 2, 60, SECOND)
    draft = Span(text[90:95], 90, FIRST, 0)
    together = runner.run([Span(other[60:61], 60, SECOND, 0), draft]).clone()[1:]
    beside_a_prompt = runner.run([draft, Span(other[:60], 0, SECOND, 60)]).clone()
    one_by_one = [
        runner.run([Span(text[n : n + 1], n, FIRST, 0)]).clone()[0] for n in range(90, 95)
    ]
    assert torch.equal(together, beside_a_prompt)
    assert torch.equal(together, torch.stack(one_by_one))


def test_what_fills_a_step_up_leaves_no_trace() -> None:
    """After a step with stale tables and tokens, the next has the bits of a fresh runner."""
    model = loaded(model_of(models.config()), exact=True)
    used, fresh = graph_runner(model), graph_runner(model)
    prompt(used, 3, 120, SECOND[:1] + FIRST + SECOND[1:])
    for runner in (used, fresh):
        prompt(runner, 1, 40, FIRST)
    span = [Span(tokens_of(1, 41)[40:41], 40, FIRST, 0)]
    assert torch.equal(used.run(span), fresh.run(span))


def items() -> list[Judged]:
    """One of every kind, with drafts that are right, wrong and absent."""
    asked: list[dict[str, Any]] = [
        {"temperature": 0.0},
        {"temperature": 0.8, "logprobs": True},
        {"temperature": 0.7, "top_k": 20, "top_p": 0.9},
        {"temperature": 1.0, "min_p": 0.02, "repetition_penalty": 1.2, "presence_penalty": 0.3},
        {"temperature": 0.0, "frequency_penalty": 0.4, "logit_bias": {5: 3.0, 9: -50.0}},
        {"temperature": 0.6, "logit_bias": {7: 2.0}},
    ]
    found: list[Judged] = []
    for number, params in enumerate(asked):
        sampler = Sampler(SamplingParams(**params), 100 + number, models.VOCAB)
        text = tokens_of(number, 30 + number)
        masks = None
        if number % 3 == 2:
            draw = np.random.default_rng(number)
            masks = draw.integers(0, 2**32, (4, -(-models.VOCAB // 32)), dtype=np.uint32)
        found.append(Judged(sampler, text, 20, [], masks))
    return found


def drafted(item: Judged, logits: torch.Tensor, *, wrong_at: int) -> Judged:
    """With a draft of three that is right before place `wrong_at`."""
    draft: list[int] = []
    for row in range(3):
        trial = item._replace(draft=draft, masks=None if item.masks is None else item.masks)
        verdict = trial.sampler.verify(
            logits[: row + 1], trial.tokens, trial.prompt_length, draft, trial.masks
        )
        right = verdict.tokens[row]
        draft = [*draft, right if row != wrong_at else (right + 1) % models.VOCAB]
        if row == wrong_at:
            break
    return item._replace(draft=[*draft, *[0] * (3 - len(draft))])


@pytest.mark.parametrize("wrong_at", [0, 1, 3])
def test_verdicts_are_those_of_the_sampler(wrong_at: int) -> None:
    runner = graph_runner(loaded(model_of(models.config()), exact=False))
    text = prompt(runner, 1, 90, FIRST)
    asked = items()
    # Every item is judged by the same four rows of logits, its own copy of them.
    spans = [Span(text[90:94], 90, FIRST, 0) for _ in asked]
    logits = runner.run(spans)
    asked = [drafted(item, logits[:4].float(), wrong_at=wrong_at) for item in asked]
    found = runner.judge(logits, asked)
    for n, item in enumerate(asked):
        wanted = item.sampler.verify(
            logits[4 * n : 4 * n + 4].float(),
            item.tokens,
            item.prompt_length,
            item.draft,
            item.masks,
        )
        assert found[n].tokens == wanted.tokens
        assert found[n].accepted == wanted.accepted == wrong_at
        assert found[n].logprobs == (
            None if wanted.logprobs is None else pytest.approx(wanted.logprobs, abs=1e-6)
        )


def test_logits_that_are_no_numbers_fail_their_own_sequence_alone() -> None:
    runner = graph_runner(loaded(model_of(models.config()), exact=False))
    text = prompt(runner, 1, 40, FIRST)
    logits = runner.run([Span(text[40:42], 40, FIRST, 0), Span(text[40:41], 40, FIRST, 0)])
    sampler = Sampler(SamplingParams(temperature=0.0), 1, models.VOCAB)
    right = int(logits[0].argmax())
    logits[1] = float("nan")
    item = Judged(sampler, text[:41], 20, [right])
    failed, well = runner.judge(logits, [item, item._replace(draft=[])])
    assert failed == Verdict([right], 1, None, True)
    assert well == Verdict([right], 0, None, False)


def test_more_rows_than_planned_are_refused() -> None:
    runner = graph_runner(loaded(model_of(models.config()), exact=False), most_rows=64)
    with pytest.raises(IntegrityError, match="at most 64"):
        runner.run([Span([0] * 65, 0, FIRST, 65)])


def test_row_counts_reach_what_is_asked_for_in_sizes_that_are_exact() -> None:
    assert row_counts(200, None)[-3:] == [128, 192, 256]
    assert row_counts(5, None) == [1, 2, 4, 8]
    assert row_counts(130, (64,)) == [64, 128, 192]
    assert row_counts(130, (8, 32)) == [8, 32, 64, 96, 128, 160]
    assert all(count % BLOCK == 0 for count in row_counts(256, (16,)))
