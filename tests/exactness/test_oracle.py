# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# torch and transformers declare some of their types in part only.
"""Greedy output in float32 is what transformers.generate says, token for token.

20 prompts, 64 tokens each, with drafts. For the oracle, prompts of the same number of tokens go
through `generate` together: that needs no padding, which would change its sums. The engine gets all
20 at once. Prompts are fixed; should another machine's rounding ever turn a near-tie around, the
message says by how much the two tokens' logits differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine.loading.checkpoint import no_progress
from engine.loading.pull import pull
from tests import models
from tests.generation import engine_on, generate, request

if TYPE_CHECKING:
    from pathlib import Path

TOKENS = 64
TOPICS = """
The lighthouse keeper climbed the stairs every evening before dusk, trimmed the wick, polished the \
great lens and wrote down the direction of the wind, the height of the waves and the name of every \
ship that passed. One night, in the middle of a storm, he saw

def reverse_words(sentence): words = sentence.split(); words.reverse(); return ' '.join(words)
def count_vowels(sentence): return sum(letter in 'aeiou' for letter in sentence.lower())
def longest_word(sentence): return max(sentence.split(), key=len)

Ingredients: two cups of flour, one cup of sugar, three eggs, half a cup of butter, a pinch of salt.
Method: heat the oven, beat the eggs with the sugar until they are pale, melt the butter and let \
it cool, then fold in the flour. Bake for forty minutes and

Water boils at one hundred degrees at sea level, because there the pressure of its vapour is equal \
to the pressure of the air. On a mountain the air is thinner, the pressure is lower, and therefore \
the water boils at a lower temperature. For this reason, an egg

1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144. Each number is the sum of the two before it. The row is \
named after a merchant's son from Pisa who described it in a book about counting rabbits: one pair \
in the first month, one in the second, two in the third, and
""".strip().split("\n\n")
LENGTHS = (5, 16, 33, 50)
"""Tokens of the prompts made from each topic: a word or two, whole blocks and not."""


def _prompts(tokenizer: Any) -> list[list[str]]:
    """By length: a prompt of every topic."""
    groups: list[list[str]] = []
    for length in LENGTHS:
        group = [tokenizer.decode(tokenizer(topic).input_ids[:length]) for topic in TOPICS]
        assert {len(tokenizer(prompt).input_ids) for prompt in group} == {length}
        groups.append(group)
    return groups


def _oracle(model: Any, tokenizer: Any, group: list[str], ends: list[int]) -> list[list[int]]:
    prompts = torch.tensor([tokenizer(prompt).input_ids for prompt in group])
    with torch.inference_mode():
        output = model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            do_sample=False,
            max_new_tokens=TOKENS,
            eos_token_id=ends,
            pad_token_id=ends[0],
            temperature=None,
            top_p=None,
            top_k=None,
        )
    completions: list[list[int]] = output[:, prompts.shape[1] :].tolist()
    return [_until(completion, ends) for completion in completions]


def _until(tokens: list[int], ends: list[int]) -> list[int]:
    stops = [place for place, token in enumerate(tokens) if token in ends]
    return tokens[: stops[0]] if stops else tokens


def _explain(model: Any, tokenizer: Any, prompt: str, ours: list[int], theirs: list[int]) -> str:
    """Where the two part, and whether it was close."""
    pairs = enumerate(zip([*ours, -1], [*theirs, -1], strict=False))
    place = next(i for i, (a, b) in pairs if a != b)
    context = tokenizer(prompt).input_ids + theirs[:place]
    with torch.inference_mode():
        top = model(torch.tensor([context])).logits[0, -1].topk(2)
    gap = float(top.values[0] - top.values[1])
    return (
        f"{prompt!r}: token {place}: the oracle's two best {top.indices.tolist()} are {gap} apart"
    )


def _compare(folder: Path, **settings: Any) -> None:
    # First, because it sets the number of threads, for the oracle too.
    engine = engine_on(folder, dtype="float32", **settings)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    groups = _prompts(tokenizer)
    ends = [int(tokenizer.eos_token_id)]
    expected = {
        prompt: completion
        for group in groups
        for prompt, completion in zip(group, _oracle(model, tokenizer, group, ends), strict=True)
    }
    assert len(expected) == 20
    starts = [request(p, p, temperature=0.0, max_tokens=TOKENS) for p in expected]
    streams = generate(engine, *starts)
    assert any(stream.counts.accepted for stream in streams.values())
    for prompt, stream in streams.items():
        theirs = expected[prompt]
        assert stream.ids == theirs, _explain(model, tokenizer, prompt, stream.ids, theirs)
        assert stream.reason == ("length" if len(theirs) == TOKENS else "stop")


def test_greedy_text_is_that_of_transformers_on_a_tiny_model(tiny: Path, near: Path) -> None:
    _compare(tiny, drafter="model", draft_model=str(near))


def test_greedy_text_is_that_of_transformers_on_a_tiny_mistral(tmp_path: Path) -> None:
    _compare(models.write(tmp_path / "mistral", models.mistral_config(), seed=3))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_greedy_text_is_that_of_transformers_on_the_embedded_model() -> None:
    _compare(pull(no_progress), threads=2)
