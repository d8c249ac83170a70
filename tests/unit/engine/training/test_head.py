# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
"""The unrolled head against its definition; its export."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from engine.loading.checkpoint import Checkpoint, load_checkpoint
from engine.loading.head import DraftHead, load_head
from engine.loading.parts import model_shape
from engine.training.export import export, trainable
from engine.training.head import visible_rows
from engine.training.target import Target
from tests import models
from tests.reference_head import ReferenceHead

if TYPE_CHECKING:
    from pathlib import Path

STEPS = 5
ROWS = 24


@pytest.fixture(scope="module")
def checkpoint(tiny: Path) -> Checkpoint:
    return load_checkpoint(str(tiny))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.write_head(tmp_path_factory.mktemp("heads") / "head")


@pytest.fixture(scope="module")
def published(checkpoint: Checkpoint, folder: Path) -> DraftHead:
    return load_head(folder, model_shape(checkpoint.config))


@pytest.fixture(scope="module")
def target(checkpoint: Checkpoint, published: DraftHead) -> Target:
    return Target(checkpoint, published.feature_layers, dtype=torch.float32, device="cpu")


def text(rows: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(2, models.VOCAB, (1, rows), generator=generator)


@torch.no_grad()
def unrolled(
    published: DraftHead, target: Target, tokens: torch.Tensor, owner: torch.Tensor
) -> list[torch.Tensor]:
    visible = visible_rows(owner)
    features = target.read(tokens, visible).features
    head = trainable(published)
    return list(head.unroll(features, tokens, target.embedding, visible, STEPS))


def test_unrolled_step_gives_what_a_draft_along_the_text_gives(
    published: DraftHead, target: Target, folder: Path
) -> None:
    """The reference drafts one row after another from each place, forced along the same tokens."""
    reference = ReferenceHead(
        load_file(folder / "model.safetensors"),
        target.embedding,
        heads=4,
        kv_heads=2,
        theta=10000.0,
        eps=1e-5,
    )
    tokens = text(ROWS)
    steps = unrolled(published, target, tokens, torch.ones_like(tokens))
    inputs = target.read(tokens, visible_rows(torch.ones_like(tokens))).features[0]
    features = reference.features([inputs])
    for start in range(ROWS - STEPS - 1):
        known = features[: start + 1]
        for step in range(STEPS):
            rows = reference.rows(tokens[0, 1 : start + 2 + step], known)
            torch.testing.assert_close(
                steps[step][0, start], reference.logits(rows[-1:])[0], atol=2e-4, rtol=2e-4
            )
            known = torch.cat([known, rows[-1:]])


def test_documents_in_one_row_do_not_see_each_other(published: DraftHead, target: Target) -> None:
    first, second = text(10, seed=1), text(14, seed=2)
    both = torch.cat([first, second], dim=1)
    owner = torch.tensor([[1] * 10 + [2] * 14])
    together = unrolled(published, target, both, owner)
    alone = unrolled(published, target, second, torch.ones_like(second))
    for step in range(STEPS):
        rows = 14 - 1 - step
        torch.testing.assert_close(
            together[step][0, 10 : 10 + rows], alone[step][0, :rows], atol=1e-3, rtol=1e-3
        )


def test_exported_head_is_the_one_that_was_read(
    published: DraftHead, target: Target, tmp_path: Path
) -> None:
    head = trainable(published)
    export(head, published.tokens, target, models.CONTEXT, tmp_path / "head")
    again = load_head(tmp_path / "head", target.shape)
    assert again.tokens.tolist() == published.tokens.tolist()
    assert again.feature_layers == published.feature_layers
    assert np.flatnonzero(again.tensors["t2d"].numpy()).tolist() == published.tokens.tolist()
    for name, weight in head.state_dict().items():
        torch.testing.assert_close(again.tensors[name], weight.bfloat16())
