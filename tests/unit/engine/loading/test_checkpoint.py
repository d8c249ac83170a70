# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from engine.loading.checkpoint import CheckpointError, GenerationDefaults, load_checkpoint
from tests.unit.engine.checkpoints import write_tiny_llama
from tests.unit.engine.tiny_gguf import write_tiny_gguf

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tiny_llama(tmp_path / "tiny")
    return tmp_path / "tiny"


def edit(path: Path, **changes: Any) -> None:
    settings: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(settings | changes))


def refusal(spec: str | Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(str(spec)).tensors(None)
    return caught.value


def test_checkpoint_holds_what_the_directory_holds(folder: Path) -> None:
    edit(folder / "generation_config.json", temperature=0.2, top_k=7, eos_token_id=[1, 5])
    checkpoint = load_checkpoint(str(folder))
    weights = load_file(folder / "model.safetensors")
    assert checkpoint.name == "tiny"
    assert checkpoint.config.hidden_size == 64
    assert checkpoint.tensors(None).keys() == weights.keys()
    tensors = checkpoint.tensors(None)
    assert all(torch.equal(tensors[name], weights[name]) for name in weights)
    assert checkpoint.tokenizer.decode(checkpoint.tokenizer.encode("wet ☕")) == "wet ☕"
    assert checkpoint.has_chat_template
    assert checkpoint.defaults == GenerationDefaults(temperature=0.2, top_k=7)
    assert checkpoint.eos_token_ids == {1, 5}
    assert checkpoint.special_token_ids == {0, 1}


def test_checkpoint_casts_weights_to_the_dtype_asked_for(folder: Path) -> None:
    tensors = load_checkpoint(str(folder)).tensors("bfloat16")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}


def test_checkpoint_works_without_template_and_generation_config(folder: Path) -> None:
    (folder / "generation_config.json").unlink()
    (folder / "chat_template.jinja").unlink()
    checkpoint = load_checkpoint(str(folder))
    assert not checkpoint.has_chat_template
    assert checkpoint.defaults == GenerationDefaults()
    assert checkpoint.eos_token_ids == {1}


def test_checkpoint_joins_the_shards_of_an_index(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    shards = {"a.safetensors": names[:5], "b.safetensors": names[5:]}
    for shard, members in shards.items():
        save_file({name: weights[name] for name in members}, folder / shard)
    places = {name: shard for shard, members in shards.items() for name in members}
    edit(folder / "model.safetensors.index.json", weight_map=places)
    assert load_checkpoint(str(folder)).tensors(None).keys() == weights.keys()


@pytest.mark.parametrize("places", [None, ["a"], {"w": "../model.safetensors"}, {"w": "/a"}])
def test_checkpoint_refuses_an_index_that_leads_out_of_its_folder(
    folder: Path, places: object
) -> None:
    edit(folder / "model.safetensors.index.json", weight_map=places)
    error = refusal(folder)
    assert error.code == "broken_checkpoint"
    assert "model.safetensors.index.json" in error.message


def test_checkpoint_refuses_pickle_files(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    error = refusal(folder)
    assert error.code == "unsupported_checkpoint"
    assert "pytorch_model.bin" in error.message
    assert "safetensors" in error.message
    assert refusal(folder / "pytorch_model.bin").code == "unsupported_checkpoint"


def test_checkpoint_refuses_other_architectures_and_names_what_is_allowed(folder: Path) -> None:
    edit(folder / "config.json", architectures=["Qwen3ForCausalLM"])
    error = refusal(folder)
    assert error.code == "unsupported_architecture"
    assert "Qwen3ForCausalLM" in error.message
    assert "LlamaForCausalLM, MistralForCausalLM" in error.message


def test_checkpoint_refuses_sliding_window_attention(folder: Path) -> None:
    mistral = {"model_type": "mistral", "architectures": ["MistralForCausalLM"]}
    edit(folder / "config.json", **mistral, sliding_window=128)
    assert "sliding window" in refusal(folder).message
    edit(folder / "config.json", sliding_window=None)
    assert load_checkpoint(str(folder)).config.model_type == "mistral"


def test_checkpoint_refuses_quantised_weights(folder: Path) -> None:
    edit(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    assert refusal(folder).code == "unsupported_checkpoint"


def test_checkpoint_never_runs_code_of_the_checkpoint(folder: Path) -> None:
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\nclass Evil: pass\n")
    edit(folder / "config.json", model_type="evil", auto_map={"AutoConfig": "evil.Evil"})
    assert refusal(folder).code == "broken_checkpoint"
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("config.json", "{", "broken_checkpoint"),
        ("model.safetensors", "no weights", "broken_checkpoint"),
        ("model.safetensors", None, "broken_checkpoint"),
        ("tokenizer.json", None, "unsupported_tokenizer"),
        ("generation_config.json", "{", "broken_checkpoint"),
        ("generation_config.json", '{"temperature": "hot"}', "broken_checkpoint"),
    ],
)
def test_checkpoint_says_which_file_is_broken(
    folder: Path, name: str, content: str | None, code: str
) -> None:
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    assert refusal(folder).code == code


def test_checkpoint_names_the_choices_when_there_is_no_such_model(tmp_path: Path) -> None:
    error = refusal(tmp_path / "nothing here")
    assert error.code == "model_not_found"
    assert "smollm2-135m-instruct" in error.message


def test_checkpoint_says_so_when_the_hub_has_no_such_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    error = refusal("nobody/no-such-model")
    assert error.code == "model_not_found"
    assert "hub says" in error.message
    assert "\n" not in error.message


def test_checkpoint_converts_a_gguf_file_once_until_it_changes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "tiny.gguf"
    write_tiny_gguf(file)
    phases: list[str] = []
    first = load_checkpoint(str(file), lambda phase, _: phases.append(phase))
    assert first.name == "tiny"
    assert first.config.architectures == ["LlamaForCausalLM"]
    assert "converting the weights" in phases
    text = "wet ink ☕  dries"
    assert first.tokenizer.decode(first.tokenizer.encode(text)) == text

    phases.clear()
    second = load_checkpoint(str(file), lambda phase, _: phases.append(phase))
    assert "converting the weights" not in phases
    again = second.tensors(None)
    assert all(torch.equal(t, again[name]) for name, t in first.tensors(None).items())

    os.utime(file, ns=(1, 1))
    load_checkpoint(str(file), lambda phase, _: phases.append(phase))
    assert "converting the weights" in phases


def test_checkpoint_refuses_a_file_that_only_claims_to_be_gguf(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "fake.gguf").write_bytes(b"GGUX" * 100)
    assert refusal(tmp_path / "fake.gguf").code == "broken_checkpoint"
    assert list((tmp_path / "cache" / "wetink" / "converted").glob("fake*[!k]")) == []
