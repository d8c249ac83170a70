# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# torch, tokenizers and transformers declare some of their types in part only.
"""Tiny random checkpoints with a tokenizer and a chat template, written as Hugging Face folders.

The weights are drawn so that the model has opinions: at temperature 0.7 it neither repeats one
token for ever nor says anything with equal chance, so temperatures and seeds give different texts,
and copied drafts are sometimes right.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

if TYPE_CHECKING:
    from pathlib import Path

VOCAB = 320
"""Rows of the embedding; the tokenizer has a few tokens less, as in real checkpoints."""
TOKENS = 312
CONTEXT = 512
BOS, EOS = "<s>", "</s>"
CHAT_TEMPLATE = (
    "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant:{% endif %}"
)
SENTENCES = [
    "The ink is wet until it is verified, and then the ink is dry.",
    "A draft is a guess; a guess may be wrong, and what is wrong is taken back.",
    "The reader sees the text grow, and the text the reader sees is the text that stays.",
    "One two three four five six seven eight nine ten, and then one two three four again.",
]
OTHER_SENTENCES = ["Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich."]


@lru_cache(maxsize=2)
def _trained(sentences: tuple[str, ...]) -> str:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=TOKENS,
        special_tokens=[BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences, trainer)
    return tokenizer.to_str()


def tokenizer(*, other: bool = False) -> PreTrainedTokenizerFast:
    """Byte-level BPE; `other`: of the same size, but its ids mean something else."""
    text = _trained(tuple(OTHER_SENTENCES if other else SENTENCES))
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(text),
        bos_token=BOS,
        eos_token=EOS,
        chat_template=CHAT_TEMPLATE,
    )


def config(**changes: Any) -> LlamaConfig:
    settings: dict[str, Any] = {
        "vocab_size": VOCAB,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": None,
        "tie_word_embeddings": False,
    }
    return LlamaConfig(**(settings | changes))


def mistral_config() -> MistralConfig:
    settings = config().to_dict()
    wanted = {key: settings[key] for key in ("vocab_size", "hidden_size", "intermediate_size")}
    return MistralConfig(
        **wanted,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=CONTEXT,
        bos_token_id=0,
        eos_token_id=1,
        sliding_window=None,
    )


def _scale(name: str) -> float:
    """Standard deviation of a weight. Large embeddings: what comes next depends mostly on the last
    token, so that greedy texts soon repeat themselves and copying pays. Larger queries and keys:
    attention looks somewhere. The head spreads the logits over about 3 nats.
    """
    if "embed_tokens" in name:
        return 2.0
    if "q_proj" in name or "k_proj" in name:
        return 0.25
    return 0.4 if name == "lm_head.weight" else 0.1


def random_model(shape: LlamaConfig | MistralConfig, *, seed: int) -> PreTrainedModel:
    """In float32. Deterministic; leaves torch's global generator as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if isinstance(shape, MistralConfig):
            model = MistralForCausalLM(shape)
        else:
            model = LlamaForCausalLM(shape)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "norm" in name:
                    weight.uniform_(0.7, 1.3)
                else:
                    weight.normal_(0.0, _scale(name))
    return model.eval()


def write(
    folder: Path,
    shape: LlamaConfig | MistralConfig | None = None,
    *,
    seed: int = 0,
    other_tokenizer: bool = False,
) -> Path:
    """A random checkpoint in float32. Returns `folder`."""
    random_model(shape or config(), seed=seed).save_pretrained(folder)
    tokenizer(other=other_tokenizer).save_pretrained(folder)
    return folder


def write_near(folder: Path, target: Path, *, distance: float, seed: int = 1) -> Path:
    """A draft model: the target's weights, each multiplied by 1 + `distance` * normal noise."""
    model = AutoModelForCausalLM.from_pretrained(target)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1 + distance * torch.randn(weight.shape, generator=generator))
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def write_head(folder: Path, *, seed: int = 5, vocab: int | None = 96, **changes: Any) -> Path:
    """A random EAGLE-3 head for `config()` in its published layout, in float32, that knows `vocab`
    tokens (None: all). `changes` go into its configuration. Returns `folder`.
    """
    settings: dict[str, Any] = {
        "architectures": ["LlamaForCausalLMEagle3"],
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "vocab_size": VOCAB,
        "draft_vocab_size": vocab,
        "hidden_act": "silu",
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": False,
        "eagle_config": {"eagle_aux_hidden_state_layer_ids": [0, 1, 2]},
    } | changes
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(settings))
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, scale: float = 0.1) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * scale

    hidden, inner = settings["hidden_size"], settings["intermediate_size"]
    attended = settings["num_attention_heads"] * settings["head_dim"]
    kept = settings["num_key_value_heads"] * settings["head_dim"]
    features = len(settings["eagle_config"]["eagle_aux_hidden_state_layer_ids"])
    tensors = {
        "fc.weight": normal(hidden, features * hidden),
        "midlayer.self_attn.q_proj.weight": normal(attended, 2 * hidden, scale=0.25),
        "midlayer.self_attn.k_proj.weight": normal(kept, 2 * hidden, scale=0.25),
        "midlayer.self_attn.v_proj.weight": normal(kept, 2 * hidden),
        "midlayer.self_attn.o_proj.weight": normal(hidden, attended),
        "midlayer.mlp.gate_proj.weight": normal(inner, hidden),
        "midlayer.mlp.up_proj.weight": normal(inner, hidden),
        "midlayer.mlp.down_proj.weight": normal(hidden, inner),
        "lm_head.weight": normal(vocab or VOCAB, hidden, scale=0.4),
    }
    for name in ("hidden_norm", "input_layernorm", "post_attention_layernorm"):
        tensors[f"midlayer.{name}.weight"] = 1 + normal(hidden)
    tensors["norm.weight"] = 1 + normal(hidden)
    if vocab is not None:
        known = torch.randperm(VOCAB, generator=generator)[:vocab].sort().values
        tensors["d2t"] = known - torch.arange(vocab)
    save_file(tensors, folder / "model.safetensors")
    return folder


def with_prefix_space(tokenizer_json: str) -> str:
    """A tokenizer.json with the same vocabulary that puts a space before every text."""
    content = json.loads(tokenizer_json)
    content["pre_tokenizer"]["add_prefix_space"] = True
    return json.dumps(content)
