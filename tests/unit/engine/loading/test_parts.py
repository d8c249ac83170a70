# pyright: reportUnknownMemberType=false
# transformers declares some of its types in part only.
"""What an engine refuses to be made of, and what it plans before anything is allocated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from engine.errors import EngineConfigError, EngineRequestError
from tests import models
from tests.generation import engine_on, generate, request, scheduler_of

if TYPE_CHECKING:
    from pathlib import Path


def refused(model: Path, **settings: Any) -> EngineConfigError:
    with pytest.raises(EngineConfigError) as caught:
        engine_on(model, **settings)
    return caught.value


def test_draft_model_with_another_vocabulary_is_refused(tiny: Path, tmp_path: Path) -> None:
    other = models.write(tmp_path / "other", other_tokenizer=True)
    error = refused(tiny, draft_model=str(other))
    assert error.param == "draft_model"
    assert "'other'" in error.message
    assert "same tokenizer" in error.message


def test_draft_model_that_splits_text_otherwise_is_refused(tiny: Path, tmp_path: Path) -> None:
    """The same tokens with the same ids, but texts are cut by other rules."""
    other = models.write(tmp_path / "other")
    path = other / "tokenizer.json"
    path.write_text(models.with_prefix_space(path.read_text(encoding="utf-8")), encoding="utf-8")
    error = refused(tiny, draft_model=str(other))
    assert error.param == "draft_model"
    assert "splits text differently" in error.message


def test_draft_model_with_fewer_logits_is_refused(tiny: Path, tmp_path: Path) -> None:
    other = models.write(tmp_path / "other", models.config(vocab_size=models.VOCAB + 8))
    error = refused(tiny, draft_model=str(other))
    assert error.param == "draft_model"
    assert f"{models.VOCAB + 8}" in error.message


def test_draft_model_with_a_shorter_context_wants_a_shorter_context(
    tiny: Path, tmp_path: Path
) -> None:
    other = models.write(tmp_path / "other", models.config(max_position_embeddings=256))
    error = refused(tiny, draft_model=str(other))
    assert error.param == "context_length"
    assert "256" in error.message
    engine = engine_on(tiny, draft_model=str(other), context_length=256)
    start = request("s", "The ink " * 60, max_tokens=500, drafter="model", ignore_eos=True)
    counts = generate(engine, start)["s"].counts
    assert counts.prompt + counts.completion == 256


def test_model_drafter_without_a_draft_model_is_refused(tiny: Path) -> None:
    assert refused(tiny, drafter="model").param == "draft_model"


def test_context_longer_than_trained_is_refused(tiny: Path) -> None:
    error = refused(tiny, context_length=models.CONTEXT + 1)
    assert error.param == "context_length"
    assert str(models.CONTEXT) in error.message


def test_memory_that_holds_no_block_is_refused(tmp_path: Path) -> None:
    wide = models.config(num_hidden_layers=1, head_dim=4096, num_key_value_heads=4)
    model = models.write(tmp_path / "wide", wide)
    error = refused(model, kv_blocks=None, kv_memory_mib=1, dtype="float32")
    assert error.param == "kv_memory_mib"
    assert "16 tokens" in error.message


def test_blocks_are_as_many_as_the_memory_holds_for_both_models(tiny: Path, near: Path) -> None:
    alone = engine_on(tiny, kv_blocks=None, kv_memory_mib=1).info().kv_blocks
    both = engine_on(tiny, kv_blocks=None, kv_memory_mib=1, draft_model=str(near)).info().kv_blocks
    # 2 layers x 2 (keys, values) x 2 heads x 16 x 2 bytes x 16 tokens
    assert alone == 1024 * 1024 // (2 * 2 * 2 * 16 * 2 * 16)
    assert both == alone // 2


def test_context_is_no_longer_than_all_blocks_together(tiny: Path) -> None:
    assert engine_on(tiny, kv_blocks=7).info().context_length == 7 * 16
    assert engine_on(tiny, kv_blocks=400).info().context_length == models.CONTEXT
    assert engine_on(tiny, context_length=100).info().context_length == 100


def test_engine_says_what_it_loaded(tiny: Path, near: Path) -> None:
    info = engine_on(tiny, draft_model=str(near), dtype="float32", block_size=32).info()
    assert (info.model, info.dtype, info.vocab_size) == ("tiny", "float32", models.VOCAB)
    assert (info.drafters, info.kv_blocks, info.block_size) == (
        ["model", "ngram", "suffix"],
        400,
        32,
    )
    assert engine_on(tiny).info().drafters == ["ngram", "suffix"]


def test_checkpoint_with_a_short_context_runs_to_its_end(tmp_path: Path) -> None:
    model = models.write(tmp_path / "short", models.config(max_position_embeddings=24))
    engine = engine_on(model)
    stream = generate(engine, request("s", "The ink", max_tokens=100, ignore_eos=True))["s"]
    assert stream.reason == "length"
    assert stream.counts.prompt + stream.counts.completion == 24


def test_tokens_unknown_to_the_model_are_refused_and_never_drafted(tmp_path: Path) -> None:
    """A tokenizer with more tokens than the model has embeddings."""
    model = models.write(tmp_path / "cut", models.config(vocab_size=models.TOKENS - 1))
    last = str(models.tokenizer().decode([models.TOKENS - 1]))
    engine = engine_on(model)
    with pytest.raises(EngineRequestError, match=str(models.TOKENS - 1)) as caught:
        engine.add(request("s", f"The ink{last}"))
    assert caught.value.param == "prompt"
    start = request("s", "The ink", prediction=last * 20, max_tokens=10, ignore_eos=True)
    assert generate(engine, start)["s"].counts.completion == 10
    assert scheduler_of(engine).blocks.free_blocks == 400
