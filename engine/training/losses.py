"""What the head is trained on, one small function each."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


class SoftTargets(NamedTuple):
    """What the target would say after each row, as far as the head has words for it."""

    probabilities: torch.Tensor  # [..., known], sum to one
    known: torch.Tensor  # [...] bool, whether its likeliest token is among them


def soft_targets(logits: torch.Tensor, tokens: torch.Tensor) -> SoftTargets:
    """The target's distribution over the tokens the head knows. logits [..., vocab]; tokens
    [known], ascending.
    """
    best = logits.argmax(-1)
    place = torch.searchsorted(tokens, best).clamp(max=len(tokens) - 1)
    return SoftTargets(logits[..., tokens].float().softmax(-1), tokens[place] == best)


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """-sum(targets * log softmax(logits)) of each row. Both [..., known]; gives [...] float32."""
    return -(targets * logits.float().log_softmax(-1)).sum(-1)


def step_weights(steps: int, decay: float) -> list[float]:
    """decay^i: a later step matters only where all before it were right."""
    return [decay**step for step in range(steps)]


def row_weights(owner: torch.Tensor, step: int, prompt_weight: float) -> torch.Tensor:
    """How much each row counts in a step: 1 where it foretells a token of an answer,
    `prompt_weight` where one of the prompt, 0 where that token is of another document or beyond
    the end. owner [batch, rows] as `documents.packed` gives it; gives [batch, rows] float32.
    """
    ahead = step + 2
    weights = torch.zeros(owner.shape, dtype=torch.float32, device=owner.device)
    if ahead < owner.shape[1]:
        foretold = owner[:, ahead:]
        same = foretold.abs() == owner[:, :-ahead].abs()
        weights[:, :-ahead] = torch.where(foretold > 0, 1.0, prompt_weight) * same
    return weights


def ahead(rows: torch.Tensor, step: int) -> torch.Tensor:
    """Of each row what stands `step` + 1 rows below it; the last wrap around. [batch, rows, …]."""
    return rows.roll(-1 - step, dims=1)


def unrolled_losses(
    steps: Iterator[torch.Tensor],  # logits [batch, rows, known] of each step
    targets: SoftTargets,  # after each row
    owner: torch.Tensor,  # [batch, rows]
    prompt_weight: float,
) -> Iterator[torch.Tensor]:
    """For each step of the test the weighted sum of its rows' losses. Row t of step i is held
    against what the target says after row t + 1 + i.
    """
    for step, logits in enumerate(steps):
        losses = cross_entropy(logits, ahead(targets.probabilities, step))
        weights = row_weights(owner, step, prompt_weight) * ahead(targets.known, step)
        yield (losses * weights).sum()
