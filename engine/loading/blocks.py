"""Quantised weights in a file of their own, beside a converted checkpoint.

A GGUF file holds its vocabulary in front of its weights, token by token, and to read past it takes
seconds at every start. So conversion writes the blocks once more, as safetensors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from safetensors import safe_open
from safetensors.numpy import save_file

from engine.loading.weights import BlockWeight, Kind

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

BLOCKS_FILE = "blocks.wetink"
"""Safetensors by format; under another name, because other programs take every .safetensors file of
a folder for the model's.
"""
PARTS = ("values", "scales", "minima")


def save_blocks(path: Path, weights: Mapping[str, BlockWeight]) -> None:
    """Write `weights` by name; each part is a tensor, the kinds are in the file's metadata."""
    tensors: dict[str, NDArray[np.generic]] = {}
    for name, weight in weights.items():
        for part, values in zip(PARTS, weight[1:], strict=True):
            if values is not None:
                tensors[f"{name}/{part}"] = values
    save_file(tensors, path, {name: weight.kind.name for name, weight in weights.items()})


def load_blocks(path: Path) -> dict[str, BlockWeight]:
    """What `save_blocks` wrote. Raises SafetensorError or OSError."""
    with safe_open(path, framework="np") as file:
        stored = set(file.keys())

        def part(name: str) -> Any:
            return file.get_tensor(name) if name in stored else None

        return {
            name: BlockWeight(Kind[kind], *(part(f"{name}/{each}") for each in PARTS))
            for name, kind in file.metadata().items()
        }
