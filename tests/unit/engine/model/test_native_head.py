# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
"""The head's kernels against plain torch, and drafts that do not depend on what stands beside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from engine.kernels.library import CHANCE_LEVELS, CHANCE_PLACES, Pool, load
from engine.loading.head import load_head
from engine.loading.parts import model_shape, rotary_of
from engine.model.batch import Span
from engine.model.draft_head import DraftItem, HeadDraft
from engine.model.native import NativeModel, NativeRunner, weights_of
from engine.model.native_head import NativeHead, NativeHeadRunner
from engine.sampling.noise import gumbel, philox_words
from engine.sampling.params import SamplingParams
from engine.sampling.sampler import Sampler
from tests import models
from tests.reference_head import ReferenceHead

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLOCK = 16
LENGTH = 4
GREEDY = Sampler(SamplingParams(temperature=0.0), 0, models.VOCAB)


class Setup(NamedTuple):
    target: NativeModel
    head: NativeHead
    reference: ReferenceHead
    hidden: Any
    """The target in transformers, for the inputs of its layers."""

    def runner(self) -> tuple[NativeRunner, NativeHeadRunner]:
        runner = NativeRunner(self.target, num_blocks=64, block_size=BLOCK)
        return runner, NativeHeadRunner(runner, self.head)

    def features(self, tokens: list[int]) -> torch.Tensor:
        with torch.no_grad():
            states = self.hidden(torch.tensor([tokens]), output_hidden_states=True).hidden_states
        return self.reference.features([states[0][0], states[1][0], self._last(tokens)])

    def _last(self, tokens: list[int]) -> torch.Tensor:
        """What the last layer gives; transformers shows it only behind the last norm."""
        taken: list[torch.Tensor] = []

        def take(_: Any, inputs: Any) -> None:
            taken.append(inputs[0][0].detach())

        hook = self.hidden.model.norm.register_forward_pre_hook(take)
        with torch.no_grad():
            self.hidden(torch.tensor([tokens]))
        hook.remove()
        return taken[0]


def set_up(
    tiny: Path, folder: Path, *, matrices: Any = "float32", ends: frozenset[int] = frozenset()
) -> Setup:
    hidden: Any = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    shape = model_shape(hidden.config)
    pool = Pool(load(), 2)
    weights = weights_of(load_file(tiny / "model.safetensors"), matrices)
    target = NativeModel(pool, shape, weights, rotary_of(hidden.config))
    head = load_head(folder, shape)
    own = model_shape(head.config)._replace(vocab=len(head.tokens), context=shape.context)
    packed = NativeHead(target, head, own, rotary_of(head.config), matrices=matrices, ends=ends)
    reference = ReferenceHead(
        load_file(folder / "model.safetensors"),
        hidden.get_input_embeddings().weight.detach(),
        heads=own.heads,
        kv_heads=own.kv_heads,
        theta=10000.0,
        eps=1e-5,
    )
    return Setup(target, packed, reference, hidden)


@pytest.fixture(scope="module")
def setup(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    made = set_up(tiny, models.write_head(tmp_path_factory.mktemp("heads") / "head"))
    yield made
    made.target.pool.close()


def text(length: int, seed: int = 0) -> list[int]:
    generator = np.random.default_rng(seed)
    return generator.integers(2, models.VOCAB, length).tolist()


def item(
    tokens: list[int], table: list[int], limit: int = LENGTH, sampler: Sampler = GREEDY
) -> DraftItem:
    chances = np.ones((CHANCE_PLACES, CHANCE_LEVELS), np.float32)
    return DraftItem(sampler, tokens, 1, table, limit, chances)


def draft(head: NativeHeadRunner, *items: DraftItem) -> list[HeadDraft]:
    return head.draft(items, floor=0.0, usual=1.0)


def greedy(logits: torch.Tensor, place: int) -> int:
    return int(logits.argmax())


def compare(setup: Setup, tokens: list[int]) -> None:
    """Drafts after every token of the text, which is read one token a step."""
    runner, head = setup.runner()
    features = setup.features(tokens)
    table = list(range(40))
    for place in range(1, len(tokens)):
        runner.run([Span([tokens[place - 1]], place - 1, table, 1)])
        (native,) = draft(head, item(tokens[: place + 1], table))
        expected, chances = setup.reference.draft(tokens[: place + 1], features, LENGTH, greedy)
        assert native.tokens == expected, f"after {place + 1} tokens"
        assert native.probabilities == pytest.approx(chances, rel=2e-3)
        assert native.confidence == [1.0] * LENGTH
    runner.close()


def test_drafts_are_those_of_plain_torch(setup: Setup) -> None:
    compare(setup, text(220))


@pytest.mark.parametrize(
    "shape",
    [
        {"num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 32},
        {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32},
        {"vocab": None, "intermediate_size": 32},
    ],
    ids=["one key head", "no groups", "all tokens"],
)
def test_drafts_are_those_of_plain_torch_in_other_shapes(
    tiny: Path, tmp_path: Path, shape: dict[str, Any]
) -> None:
    made = set_up(tiny, models.write_head(tmp_path / "head", seed=6, **shape))
    compare(made, text(40, seed=1))
    made.target.pool.close()


def test_head_uses_an_embedding_of_its_own(tiny: Path, tmp_path: Path) -> None:
    folder = models.write_head(tmp_path / "head")
    tensors = load_file(folder / "model.safetensors")
    tensors["embed_tokens.weight"] = torch.randn(
        models.VOCAB, 64, generator=torch.Generator().manual_seed(3)
    )
    save_file(tensors, folder / "model.safetensors")
    made = set_up(tiny, folder)
    compare(made, text(40, seed=2))
    made.target.pool.close()


def test_draft_draws_with_the_targets_noise(setup: Setup) -> None:
    tokens = text(60, seed=4)
    features = setup.features(tokens)
    runner, head = setup.runner()
    table = list(range(8))
    runner.run([Span(tokens[:-1], 0, table, len(tokens) - 1)])
    known = setup.reference.tokens.numpy()
    drafted: set[tuple[int, ...]] = set()
    for seed in range(20):
        sampler = Sampler(SamplingParams(temperature=0.8), seed, models.VOCAB)

        def choose(logits: torch.Tensor, place: int, seed: int = seed) -> int:
            words = philox_words(seed, len(tokens) - 1 + place, models.VOCAB)[known]
            return int((logits.numpy() / np.float32(0.8) + gumbel(words)).argmax())

        (native,) = draft(head, item(tokens, table, sampler=sampler))
        assert native.tokens == setup.reference.draft(tokens, features, LENGTH, choose)[0]
        drafted.add(tuple(native.tokens))
    assert len(drafted) > 10
    runner.close()


def test_bias_and_penalties_reach_the_draft(setup: Setup) -> None:
    tokens = text(30, seed=5)
    runner, head = setup.runner()
    table = list(range(4))
    runner.run([Span(tokens[:-1], 0, table, 29)])
    wanted = int(setup.reference.tokens[7])
    unknown = next(t for t in range(models.VOCAB) if t not in setup.reference.tokens)
    params = SamplingParams(temperature=0.0, logit_bias={wanted: 90.0, unknown: 99.0})
    (biased,) = draft(head, item(tokens, table, sampler=Sampler(params, 0, models.VOCAB)))
    assert biased.tokens == [wanted] * LENGTH
    params = SamplingParams(
        temperature=0.0, logit_bias={wanted: 90.0, unknown: 9.0}, presence_penalty=200.0
    )
    (once,) = draft(head, item(tokens, table, sampler=Sampler(params, 0, models.VOCAB)))
    assert once.tokens[0] == wanted
    assert len(set(once.tokens)) == LENGTH
    runner.close()


@pytest.fixture(scope="module", params=["float32", "bfloat16", "int8"])
def any_type(
    request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Setup]:
    folder = models.write_head(tmp_path_factory.mktemp("heads") / "head")
    made = set_up(tiny, folder, matrices=request.param)
    yield made
    made.target.pool.close()


TEXTS = [text(length, seed=length) for length in (2, 9, 16, 17, 33, 50, 64)]


@pytest.fixture(scope="module")
def alone(any_type: Setup) -> list[HeadDraft]:
    """Each text in a cache of its own, in one piece."""
    drafts: list[HeadDraft] = []
    for tokens in TEXTS:
        runner, head = any_type.runner()
        runner.run([Span(tokens[:-1], 0, list(range(8)), len(tokens) - 1)])
        drafts += draft(head, item(tokens, list(range(8))))
        runner.close()
    assert len({tuple(one.tokens) for one in drafts}) > 3
    return drafts


def test_drafts_in_a_batch_are_those_made_alone(any_type: Setup, alone: list[HeadDraft]) -> None:
    runner, head = any_type.runner()
    tables = [list(range(n * 8, n * 8 + 8))[::-1] for n in range(len(TEXTS))]
    spans = [
        Span(tokens[:-1], 0, table, len(tokens) - 1)
        for tokens, table in zip(TEXTS, tables, strict=True)
    ]
    runner.run(spans)
    limits = [LENGTH, 1, 3, LENGTH, 2, LENGTH, LENGTH]
    items = [
        item(tokens, table, limit)
        for tokens, table, limit in zip(TEXTS, tables, limits, strict=True)
    ]
    for one, expected, limit in zip(draft(head, *items), alone, limits, strict=True):
        assert one.tokens == expected.tokens[:limit]
        assert one.probabilities == expected.probabilities[:limit]
    runner.close()


@pytest.mark.parametrize("chunk", [1, 5, 16, 31])
def test_drafts_do_not_depend_on_how_the_text_was_read(
    any_type: Setup, alone: list[HeadDraft], chunk: int
) -> None:
    """In chunks; with wrong drafts verified in between; behind blocks that another text filled."""
    runner, head = any_type.runner()
    for number, (tokens, expected) in enumerate(zip(TEXTS, alone, strict=True)):
        shared = list(range(8))
        runner.run([Span([*tokens[:-1], 5, 6, 7], 0, shared, len(tokens) + 2)])
        whole = (len(tokens) - 1) // BLOCK
        table = shared[:whole] + list(range(20 + number, 28 + number))
        for start in range(whole * BLOCK, len(tokens) - 1, chunk):
            rows = tokens[start : min(start + chunk, len(tokens) - 1)]
            draft(head, item([*tokens[:start], 9], table)) if start else None
            runner.run([Span([*rows, 3, 4], start, table, len(rows) + 2)])
        assert draft(head, item(tokens, table)) == [expected]
    runner.close()


def test_draft_ends_before_a_token_that_ends_texts(tiny: Path, tmp_path: Path) -> None:
    folder = models.write_head(tmp_path / "head")
    tokens, sampler = text(40, seed=8), Sampler(SamplingParams(temperature=4.0), 3, models.VOCAB)
    free = set_up(tiny, folder)
    runner, head = free.runner()
    runner.run([Span(tokens[:-1], 0, list(range(4)), 39)])
    (whole,) = draft(head, item(tokens, list(range(4)), sampler=sampler))
    third = whole.tokens[2]
    assert third not in whole.tokens[:2]
    runner.close()
    bound = set_up(tiny, folder, ends=frozenset([third]))
    runner, head = bound.runner()
    runner.run([Span(tokens[:-1], 0, list(range(4)), 39)])
    assert draft(head, item(tokens, list(range(4)), sampler=sampler))[0].tokens == whole.tokens[:2]
    runner.close()
    free.target.pool.close()
    bound.target.pool.close()


def test_draft_stops_where_confidence_falls_below_the_floor(setup: Setup) -> None:
    tokens = text(20, seed=9)
    runner, head = setup.runner()
    runner.run([Span(tokens[:-1], 0, [0, 1], 19)])
    whole = item(tokens, [0, 1], limit=8)
    half = whole._replace(chances=np.full((CHANCE_PLACES, CHANCE_LEVELS), 0.5, np.float32))
    (one,) = head.draft([half], floor=0.1, usual=1.0)
    assert one.confidence == [0.5, 0.25, 0.125, 0.0625]
    (one,) = head.draft([half], floor=0.1, usual=0.5)
    assert one.confidence == [0.5, 0.25, 0.125]
    runner.close()
