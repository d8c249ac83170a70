"""A slice of the soak, large enough to find the fault that once went unnoticed; and that it would.

The fault: products that gave a row alone other last bits than a row in company, in 1.3e-4 of the
outputs of one matrix per layer. Over 30 layers 2 % of arg-maxes flipped.
"""

from __future__ import annotations

import zlib
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.soak.check import Checkpoints, Outcome, References, check
from tests.soak.combination import Combination, draw

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch

    from engine.engine import Engine
    from engine.model.batch import Span

FLIPPED = 0.02
"""Chance that a token in company was another one than alone."""
CHANGED = 1.3e-4
"""Share of a product's outputs with another last bit."""
WANTED = 0.99
"""Chance of finding the fault."""
SEED = 20
TOKENS = 48
SLICE = {
    "embedded native": (1, 2),
    "tiny native int4": (3, 28),
    "tiny native int8": (5, 11),
    "tiny native bfloat16": (6, 12),
    "tiny native float32": (7,),
    "tiny torch bfloat16": (8,),
    "tiny torch float32": (10,),
}
"""Numbers of combinations by model."""


@pytest.fixture(scope="module")
def references(tiny: Path, near: Path, tiny_head: Path) -> References:
    return References(Checkpoints(tiny, near, tiny_head))


def combinations(model: str) -> list[Combination]:
    return [draw(SEED, number, model=model, tokens=TOKENS) for number in SLICE[model]]


@pytest.mark.timeout(180)
def test_every_stream_says_what_its_task_says_alone(references: References) -> None:
    """And so many tokens are compared that the former fault would be found, nearly for certain."""
    outcomes = [check(c, references) for model in SLICE for c in combinations(model)]
    assert [o.differences for o in outcomes] == [[]] * len(outcomes)
    of_embedded = sum(o.in_company for o in outcomes[: len(SLICE["embedded native"])])
    chance = 1 - (1 - FLIPPED) ** of_embedded
    assert chance > WANTED, f"{of_embedded} tokens of the embedded model made in company"
    assert sum(o.accepted for o in outcomes) > 100
    assert sum(o.preemptions for o in outcomes) > 0
    drawn = [c for model in SLICE for c in combinations(model)]
    assert any(c.warm and c.settings["prefix_cache"] for c in drawn)
    assert any(c.dies for c in drawn)
    assert any(part.resumed is not None for c in drawn for part in c.parts)
    assert {c.settings["threads"] for c in drawn} == {1, 2, 3, 4}


class Planted:
    """Breaks an engine as `hit` says; counts what it changed."""

    def __init__(self) -> None:
        self.rows = 0
        self.changes = 0

    def _spoil_last_bits(self, product: Callable[[Any], Any], x: torch.Tensor) -> torch.Tensor:
        """In more rows than the fewest there are, a share CHANGED of outputs."""
        import torch

        y = product(x)
        if len(x) > 2:
            bits = y.view(torch.int16)
            spread = (bits.long() * 0x9E3779B1 + torch.arange(bits.shape[1]) * 0x85EBCA6B) % 2**32
            hit = spread < int(CHANGED * 2**32)
            self.changes += int(hit.sum())
            bits.copy_(torch.where(hit, bits ^ 1, bits))
        return y

    def last_bits(self, engine: Engine) -> None:
        """The former fault itself, in every layer's last product."""
        model: Any = engine._runner.model  # pyright: ignore[reportPrivateUsage]
        for layer in model._layers:
            layer._down._kernel = partial(self._spoil_last_bits, layer._down._kernel)

    def arg_maxes(self, engine: Engine) -> None:
        """What came of it: in company, two of a hundred rows have another largest logit."""
        runner: Any = engine._runner  # pyright: ignore[reportPrivateUsage]
        run = runner.run

        def spoiled(spans: list[Span]) -> Any:
            logits = run(spans)
            if sum(len(span.tokens) for span in spans) > 1:
                for row in logits:
                    self.rows += 1
                    if zlib.crc32(row.tobytes()) < FLIPPED * 2**32:
                        self.changes += 1
                        second, first = np.argpartition(row, -2)[-2:]
                        row[[second, first]] = row[[first, second]]
            return logits

        runner.run = spoiled


def _found(outcomes: list[Outcome]) -> int:
    return sum(bool(outcome.differences) for outcome in outcomes)


def test_checker_finds_arg_maxes_that_flip_as_often_as_they_did(references: References) -> None:
    planted = Planted()
    model = "tiny native int4"
    numbers = range(40, 46)
    outcomes = [
        check(draw(SEED, n, model=model, tokens=TOKENS), references, planted.arg_maxes)
        for n in numbers
    ]
    assert 0.005 < planted.changes / planted.rows < 0.05
    assert _found(outcomes) >= 3
    assert any("texts differ" in line for o in outcomes for line in o.differences)


def test_checker_finds_the_former_fault_in_two_layers_instead_of_thirty(
    references: References,
) -> None:
    planted = Planted()
    model = "tiny torch bfloat16"
    outcomes = [
        check(draw(SEED, n, model=model, tokens=TOKENS), references, planted.last_bits)
        for n in range(50, 54)
    ]
    assert planted.changes > 0
    assert _found(outcomes) >= 1
