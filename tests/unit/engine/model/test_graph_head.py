# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
"""The head of the GPU's path, run by the CPU: it drafts what our own kernels draft."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from engine.errors import IntegrityError
from engine.kernels.library import CHANCE_LEVELS, CHANCE_PLACES, Pool, load
from engine.loading.head import load_head
from engine.loading.parts import model_shape, rotary_of
from engine.model.batch import Span
from engine.model.draft_head import DraftItem, HeadDraft, HeadRunner
from engine.model.native import NativeModel, NativeRunner, weights_of
from engine.model.native_head import NativeHead, NativeHeadRunner
from engine.model.torch_head import TorchHead
from engine.sampling.params import SamplingParams
from engine.sampling.sampler import Sampler
from tests import models
from tests.unit.engine.model.graphed import BLOCK, graph_runner, head_runner, loaded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from engine.model.graph_head import GraphHeadRunner
    from engine.model.graph_runner import GraphRunner
    from engine.model.llama import LlamaModel

LENGTH = 4
GREEDY = Sampler(SamplingParams(temperature=0.0), 0, models.VOCAB)
TABLE = list(range(8))


class Both(NamedTuple):
    """One target and its head, by torch and by our own kernels, in float32."""

    model: LlamaModel
    head: TorchHead
    target: NativeModel
    native: NativeHead

    def ours(self) -> tuple[GraphRunner, GraphHeadRunner]:
        runner = graph_runner(self.model, head=self.head)
        return runner, head_runner(runner, self.head)

    def theirs(self) -> tuple[NativeRunner, NativeHeadRunner]:
        runner = NativeRunner(self.target, num_blocks=24, block_size=BLOCK)
        return runner, NativeHeadRunner(runner, self.native)


def both(tiny: Path, folder: Path, ends: frozenset[int] = frozenset()) -> Both:
    hidden: Any = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    shape = model_shape(hidden.config)
    model = loaded(hidden, exact=False)
    head = load_head(folder, shape)
    own = model_shape(head.config)._replace(vocab=len(head.tokens), context=shape.context)
    weights = weights_of(load_file(tiny / "model.safetensors"), "float32")
    target = NativeModel(Pool(load(), 2), shape, weights, rotary_of(hidden.config))
    rotary = rotary_of(head.config)
    return Both(
        model,
        TorchHead(model, head, own, rotary, ends=ends),
        target,
        NativeHead(target, head, own, rotary, matrices="float32", ends=ends),
    )


@pytest.fixture(scope="module")
def pair(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    made = both(tiny, models.write_head(tmp_path_factory.mktemp("heads") / "head"))
    yield made
    made.target.pool.close()


def text(length: int, seed: int = 0) -> list[int]:
    generator = np.random.default_rng(seed)
    return generator.integers(2, models.VOCAB, length).tolist()


def item(
    tokens: list[int],
    table: list[int] = TABLE,
    limit: int = LENGTH,
    sampler: Sampler = GREEDY,
    chance: float = 1.0,
) -> DraftItem:
    chances = np.full((CHANCE_PLACES, CHANCE_LEVELS), chance, np.float32)
    return DraftItem(sampler, tokens, 1, table, limit, chances)


def draft(head: HeadRunner, *items: DraftItem) -> list[HeadDraft]:
    return head.draft(items, floor=0.0, usual=1.0)


def assert_alike(ours: list[HeadDraft], theirs: list[HeadDraft]) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.tokens == other.tokens
        assert mine.probabilities == pytest.approx(other.probabilities, rel=2e-3)
        assert mine.confidence == pytest.approx(other.confidence, rel=1e-6)


def compare(pair: Both, tokens: list[int], sampler: Sampler = GREEDY) -> list[HeadDraft]:
    """Drafts after every token of the text, which is read one token a step."""
    ours, head = pair.ours()
    theirs, native = pair.theirs()
    drafts: list[HeadDraft] = []
    for place in range(1, len(tokens)):
        span = Span([tokens[place - 1]], place - 1, TABLE, 1)
        ours.run([span])
        theirs.run([span])
        asked = item(tokens[: place + 1], sampler=sampler)
        drafts += draft(head, asked)
        assert_alike(drafts[-1:], draft(native, asked))
    theirs.close()
    return drafts


def test_drafts_are_those_of_our_own_kernels(pair: Both) -> None:
    drafts = compare(pair, text(40))
    assert all(len(one.tokens) == LENGTH for one in drafts)
    assert len({tuple(one.tokens) for one in drafts}) > 20


@pytest.mark.parametrize(
    "shape",
    [
        {"num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 32},
        {"vocab": None, "intermediate_size": 32},
    ],
    ids=["one key head", "all tokens"],
)
def test_drafts_are_those_of_our_own_kernels_in_other_shapes(
    tiny: Path, tmp_path: Path, shape: dict[str, Any]
) -> None:
    folder = models.write_head(tmp_path / "head", seed=6, **shape)
    tensors = load_file(folder / "model.safetensors")
    draw = torch.Generator().manual_seed(3)
    tensors["embed_tokens.weight"] = torch.randn(models.VOCAB, 64, generator=draw)
    save_file(tensors, folder / "model.safetensors")
    made = both(tiny, folder)
    compare(made, text(12, seed=1))
    made.target.pool.close()


WAYS: dict[str, dict[str, Any]] = {
    "noise": {"temperature": 0.8},
    "restricted": {"temperature": 1.1, "top_k": 30, "top_p": 0.9, "min_p": 0.02},
    "penalties": {"temperature": 0.0, "repetition_penalty": 1.4, "frequency_penalty": 1.5},
    "bias": {"temperature": 0.8, "logit_bias": {7: 6.0, 11: 6.0, 300: 6.0}},
    "penalties and bias": {
        "temperature": 0.7,
        "logit_bias": dict.fromkeys(range(2, 90), 3.0),
        "presence_penalty": 2.0,
    },
}


@pytest.mark.parametrize("name", WAYS)
def test_draft_draws_as_the_target_will(pair: Both, name: str) -> None:
    sampler = Sampler(SamplingParams(**WAYS[name]), 17, models.VOCAB)
    drafts = compare(pair, text(12, seed=4), sampler)
    assert len({tuple(one.tokens) for one in drafts}) > 3


TEXTS = [text(length, seed=length) for length in (2, 9, 16, 17, 33, 50, 64)]


def test_drafts_in_a_batch_are_those_made_alone(pair: Both) -> None:
    """Of several lengths, in tables out of order, each by its own rules."""
    texts = [one for one in TEXTS if len(one) <= 33]
    tables = [list(range(n * 4, n * 4 + 4))[::-1] for n in range(len(texts))]
    limits = [LENGTH, 1, 0, 3, 2]
    params: list[dict[str, Any]] = [{"temperature": 0.0}, {"temperature": 0.8}, *WAYS.values()]
    asked = [
        item(tokens, table, limit, Sampler(SamplingParams(**each), 5, models.VOCAB))
        for tokens, table, limit, each in zip(texts, tables, limits, params, strict=False)
    ]
    alone: list[HeadDraft] = []
    for one in asked:
        runner, head = pair.ours()
        runner.run([Span(one.tokens[:-1], 0, one.block_table, len(one.tokens) - 1)])
        alone += draft(head, one)
    runner, head = pair.ours()
    runner.run([Span(one.tokens[:-1], 0, one.block_table, len(one.tokens) - 1) for one in asked])
    together = draft(head, *asked)
    assert [len(one.tokens) for one in together] == limits
    assert_alike(together, alone)
    assert head.passes(together) == [len(asked)] * LENGTH


@pytest.mark.parametrize("chunk", [1, 5, 16, 31])
def test_drafts_do_not_depend_on_how_the_text_was_read(pair: Both, chunk: int) -> None:
    """In chunks; with wrong drafts verified in between; behind blocks that another text filled."""
    for tokens in TEXTS[1:]:
        fresh, head = pair.ours()
        fresh.run([Span(tokens[:-1], 0, TABLE, len(tokens) - 1)])
        expected = draft(head, item(tokens))
        runner, head = pair.ours()
        runner.run([Span([*tokens[:-1], 5, 6, 7], 0, TABLE, len(tokens) + 2)])
        whole = (len(tokens) - 1) // BLOCK
        table = TABLE[:whole] + list(range(10, 18 - whole))
        for start in range(whole * BLOCK, len(tokens) - 1, chunk):
            rows = tokens[start : min(start + chunk, len(tokens) - 1)]
            if start:
                draft(head, item([*tokens[:start], 9], table))
            runner.run([Span([*rows, 3, 4], start, table, len(rows) + 2)])
        assert_alike(draft(head, item(tokens, table)), expected)


def test_draft_ends_before_a_token_that_ends_texts(pair: Both, tiny: Path, tmp_path: Path) -> None:
    tokens, sampler = text(40, seed=8), Sampler(SamplingParams(temperature=4.0), 3, models.VOCAB)
    runner, head = pair.ours()
    runner.run([Span(tokens[:-1], 0, TABLE, 39)])
    (whole,) = draft(head, item(tokens, sampler=sampler))
    third = whole.tokens[2]
    assert third not in whole.tokens[:2]
    bound = both(tiny, models.write_head(tmp_path / "head"), frozenset([third, models.VOCAB + 7]))
    runner, head = bound.ours()
    runner.run([Span(tokens[:-1], 0, TABLE, 39)])
    assert draft(head, item(tokens, sampler=sampler))[0].tokens == whole.tokens[:2]
    bound.target.pool.close()


def test_draft_stops_where_confidence_falls_below_the_floor(pair: Both) -> None:
    tokens = text(20, seed=9)
    runner, head = pair.ours()
    runner.run([Span(tokens[:-1], 0, TABLE, 19)])
    half = item(tokens, limit=8, chance=0.5)
    (one,) = head.draft([half], floor=0.1, usual=1.0)
    assert one.confidence == [0.5, 0.25, 0.125, 0.0625]
    (one,) = head.draft([half], floor=0.1, usual=0.5)
    assert one.confidence == [0.5, 0.25, 0.125]
    assert len(head.passes([one])) == 8


def test_draft_of_values_that_are_no_numbers_is_empty(pair: Both) -> None:
    tokens = text(20, seed=9)
    runner, head = pair.ours()
    runner.run([Span(tokens[:-1], 0, TABLE, 19)])
    assert runner.head_cache is not None
    runner.head_cache.features[18] = float("nan")
    assert draft(head, item(tokens)) == [HeadDraft([], [], [])]


def test_longest_draft_ends_with_the_last_block(pair: Both) -> None:
    """What a draft that has stopped would write lands in nobody's block."""
    tokens = text(24 * BLOCK - LENGTH, seed=2)
    table = list(range(24))
    ours, head = pair.ours()
    theirs, native = pair.theirs()
    for start in range(0, len(tokens) - 1, 128):
        part = tokens[start : min(start + 128, len(tokens) - 1)]
        for runner in (ours, theirs):
            runner.run([Span(part, start, table, len(part))])
    asked = [item(tokens, table), item(tokens[:40], table, 16)]
    assert_alike(draft(head, *asked)[:1], draft(native, *asked)[:1])
    theirs.close()


def test_profile_gives_seconds_by_sequences(pair: Both) -> None:
    _, head = pair.ours()
    points = head.profile(24).points
    assert [count for count, _ in points] == [1, 2, 4, 8, 16, 32]
    assert all(seconds > 0 for _, seconds in points)


def test_head_beside_a_runner_without_its_cache_is_refused(pair: Both) -> None:
    with pytest.raises(IntegrityError, match="no step fills its cache"):
        head_runner(graph_runner(pair.model), pair.head)


def test_more_drafts_than_planned_are_refused(pair: Both) -> None:
    _, head = pair.ours()
    with pytest.raises(IntegrityError, match="33 drafts"):
        draft(head, *[item(text(5))] * 33)
