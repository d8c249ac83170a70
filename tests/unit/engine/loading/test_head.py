# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
"""Heads in the published layout, ours and those of others, and the refusal of what does not fit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.loading.checkpoint import CheckpointError
from engine.loading.head import SHIPPED, load_head
from engine.loading.parts import model_shape
from engine.loading.pull import EMBEDDED_MODEL
from tests import models

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TARGET = model_shape(models.config())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return models.write_head(tmp_path / "head")


def refused(folder: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        load_head(folder, TARGET)
    return caught.value


def change(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)


def test_head_is_what_the_folder_holds(folder: Path) -> None:
    head = load_head(folder, TARGET)
    offsets = load_file(folder / "model.safetensors")["d2t"]
    assert head.name == "head"
    assert head.feature_layers == (0, 1, 2)
    assert head.tokens.tolist() == (torch.arange(96) + offsets).tolist()
    assert head.config.head_dim == 16


def test_head_that_knows_all_tokens_needs_no_table(tmp_path: Path) -> None:
    head = load_head(models.write_head(tmp_path / "head", vocab=None), TARGET)
    assert head.tokens.tolist() == list(range(models.VOCAB))


def test_head_without_named_layers_reads_the_usual_three(folder: Path) -> None:
    path = folder / "config.json"
    settings: dict[str, Any] = json.loads(path.read_text())
    del settings["eagle_config"]
    path.write_text(json.dumps(settings))
    head = load_head(folder, TARGET._replace(layers=30))
    assert head.feature_layers == (2, 15, 27)


def test_shipped_head_fits_the_embedded_model() -> None:
    target = TARGET._replace(vocab=49152, hidden=576, layers=30)
    head = load_head(SHIPPED[EMBEDDED_MODEL], target)
    assert head.feature_layers == (3, 15, 27)
    assert len(head.tokens) == 8192
    size = sum(path.stat().st_size for path in SHIPPED[EMBEDDED_MODEL].iterdir())
    assert size < 20e6


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_size": 32}, "hidden size of 32; this target has 64"),
        ({"vocab_size": 300}, "vocabulary of 300; this target has 320"),
        ({"num_hidden_layers": 2}, "2 layers; supported: 1"),
        ({"eagle_config": {"eagle_aux_hidden_state_layer_ids": [0, 1, 3]}}, "layers [0, 1, 3]"),
        ({"eagle_config": {"eagle_aux_hidden_state_layer_ids": "x"}}, "layer_ids"),
        ({"architectures": ["LlamaForCausalLM"]}, "is LlamaForCausalLM; supported: LlamaForCausal"),
        ({"norm_before_residual": True}, "norm_before_residual false"),
        ({"num_key_value_heads": 1}, "k_proj.weight is [32, 128], by its configuration"),
        ({"draft_vocab_size": 64}, "lm_head.weight is [96, 64]"),
    ],
)
def test_head_for_another_target_is_refused_with_the_reason(
    folder: Path, changes: dict[str, Any], words: str
) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    assert words in refused(folder).message


def test_head_with_missing_tensors_is_refused_by_their_names(folder: Path) -> None:
    change(folder, lambda tensors: [tensors.pop("fc.weight"), tensors.pop("norm.weight")])
    error = refused(folder)
    assert error.code == "broken_checkpoint"
    assert "misses fc.weight, norm.weight" in error.message


def test_head_whose_tokens_are_not_the_targets_is_refused(folder: Path) -> None:
    change(folder, lambda tensors: tensors["d2t"].fill_(0)[-1].fill_(models.VOCAB))
    assert "96 different tokens of the target's 320" in refused(folder).message


def test_head_with_an_embedding_of_another_vocabulary_is_refused(folder: Path) -> None:
    change(folder, lambda tensors: tensors.update({"embed_tokens.weight": torch.zeros(8, 64)}))
    assert "embed_tokens.weight is [8, 64]" in refused(folder).message


def test_pickled_head_is_not_opened(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "pickle" in refused(folder).message


def test_file_that_is_no_safetensors_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"nothing of the kind")
    assert refused(folder).code == "broken_checkpoint"
