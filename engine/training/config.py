"""The recipe's numbers, in one frozen struct. The defaults are those of the reference head."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

PositiveInt = Annotated[int, Meta(gt=0)]
Share = Annotated[float, Meta(ge=0, le=1)]


class TrainingConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a run depends on besides the target. Lengths in tokens."""

    seed: int = 1
    documents: PositiveInt = 32768
    instruction_share: Share = 0.5
    """Documents that answer instructions the model made up itself."""
    template_share: Share = 0.33
    """Documents that answer templates about topics; the rest are tasks over answers."""
    greedy_share: Share = 0.45
    temperatures: tuple[float, ...] = (0.2, 0.7, 1.0)
    """Of the documents that are not greedy, in equal parts."""
    instruction_tokens: PositiveInt = 96
    answer_tokens: PositiveInt = 384
    shard: PositiveInt = 256
    """Documents written before the next file of them is saved."""
    held_out_documents: PositiveInt = 24
    """For the evaluation, per kind of task and temperature."""

    draft_vocabulary: PositiveInt = 8192
    feature_layers: tuple[int, ...] | None = None
    """Target layers whose inputs the head reads; None: the fourth, the middle one and the third
    from the end.
    """
    intermediate_size: PositiveInt | None = None
    """None: as the target's."""

    row: PositiveInt = 512
    batch: PositiveInt = 32
    rows_at_once: PositiveInt = 8
    """Rows of a batch that are in memory together; the gradient is of the whole batch."""
    steps: PositiveInt = 9300
    test_steps: PositiveInt = 5
    """Steps of training-time test: the head reads its own output so often."""
    step_decay: Share = 0.8
    prompt_weight: Share = 0.1
    learning_rate: float = 2e-3
    final_learning_rate: float = 1e-5
    warmup: Annotated[int, Meta(ge=0)] = 200
    betas: tuple[float, float] = (0.9, 0.95)
    gradient_norm: float = 1.0
    checkpoint_every: PositiveInt = 200

    def layers_of(self, target_layers: int) -> tuple[int, ...]:
        if self.feature_layers is not None:
            return self.feature_layers
        return (min(3, target_layers - 1), target_layers // 2, max(target_layers - 3, 0))


def tiny(seed: int = 1) -> TrainingConfig:
    """Every stage in seconds, on a model of a few thousand weights."""
    return TrainingConfig(
        seed=seed,
        documents=48,
        instruction_tokens=12,
        answer_tokens=48,
        shard=16,
        held_out_documents=4,
        draft_vocabulary=192,
        feature_layers=(0, 1, 2),
        row=64,
        batch=8,
        steps=60,
        warmup=5,
        learning_rate=1e-2,
        checkpoint_every=20,
    )
