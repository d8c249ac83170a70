"""What is served: the embedded model where it is at hand, else one of its shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from engine.loading.pull import EMBEDDED_MODEL, embedded_folder
from tests import models

if TYPE_CHECKING:
    from pathlib import Path

SMALL = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}


class ServedModel(NamedTuple):
    name: str
    spec: str
    """For `--model`."""
    folder: Path
    options: tuple[str, ...]
    head: bool
    """Whether it has a draft head."""


def served_model(folder: Path, *, tiny: bool) -> ServedModel:
    """Random weights where the embedded model is not in the cache: they say nothing, but take as
    long; drafts of them mean nothing.
    """
    if not tiny and embedded_folder().is_dir():
        return ServedModel(EMBEDDED_MODEL, EMBEDDED_MODEL, embedded_folder(), (), head=True)
    config = models.config() if tiny else models.config(**SMALL)
    with torch.random.fork_rng():
        written = models.write(folder / "random", config)
    name = "a tiny random model" if tiny else "a random model of the embedded one's shape"
    if not tiny:
        return ServedModel(name, str(written), written, (), head=False)
    head = models.write_head(folder / "head")
    options = ("--context-length", "256", "--draft-head", str(head))
    return ServedModel(name, str(written), written, options, head=True)
