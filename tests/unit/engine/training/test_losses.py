# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
"""Losses against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from engine.training.losses import (
    SoftTargets,
    cross_entropy,
    row_weights,
    soft_targets,
    step_weights,
    unrolled_losses,
)


def test_cross_entropy_is_that_of_the_definition() -> None:
    # softmax of (ln 1, ln 3) is (1/4, 3/4).
    logits = torch.tensor([[0.0, math.log(3)]])
    targets = torch.tensor([[0.5, 0.5]])
    expected = -0.5 * math.log(0.25) - 0.5 * math.log(0.75)
    assert cross_entropy(logits, targets).tolist() == pytest.approx([expected])


def test_soft_targets_are_the_targets_chances_among_known_tokens() -> None:
    logits = torch.tensor([[math.log(2), 5.0, math.log(6)], [math.log(3), 0.5, 0.0]])
    found = soft_targets(logits, torch.tensor([0, 2]))
    assert found.probabilities[0].tolist() == pytest.approx([0.25, 0.75])
    assert found.probabilities[1].tolist() == pytest.approx([0.75, 0.25])
    # The likeliest token of the first row is not known.
    assert found.known.tolist() == [False, True]


def test_step_weights_fall_geometrically() -> None:
    assert step_weights(3, 0.8) == pytest.approx([1.0, 0.8, 0.64])


def test_row_counts_by_what_it_foretells() -> None:
    # Two tokens of a prompt, three of its answer, then two of the next document's prompt.
    owner = torch.tensor([[-1, -1, 1, 1, 1, -2, -2, -2]])
    # Rows 0 … 2 foretell answer tokens; 3 and 4 would foretell the next document; 5 its prompt.
    first = row_weights(owner, 0, 0.1)[0].tolist()
    assert first == pytest.approx([1, 1, 1, 0, 0, 0.1, 0, 0])
    assert row_weights(owner, 1, 0.1)[0].tolist() == pytest.approx([1, 1, 0, 0, 0, 0, 0, 0])
    assert row_weights(owner, 7, 0.1)[0].tolist() == [0] * 8


def test_step_is_held_against_the_row_it_reaches_and_unknown_tokens_do_not_count() -> None:
    owner = torch.ones(1, 4, dtype=torch.int64)
    sure = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]])
    known = torch.tensor([[True, False, True, True]])
    even = torch.zeros(1, 4, 2)
    hit = torch.tensor([[[0.0, 0.0], [50.0, 0.0], [0.0, 0.0], [0.0, 0.0]]])
    losses = list(unrolled_losses(iter([hit, even]), SoftTargets(sure, known), owner, 0.1))
    # Step 0: row 0 looks at row 1, which is unknown; row 1 at row 2, foretold; rows 2 and 3 beyond.
    assert losses[0].item() == pytest.approx(0.0, abs=1e-6)
    # Step 1: only row 0 counts; it looks at row 2 and knows nothing.
    assert losses[1].item() == pytest.approx(math.log(2))
