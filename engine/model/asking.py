"""What requests ask of a choice, laid out by row for the device (see sampling/choosing.py)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from engine.sampling.choosing import NO_TOP_P, Kind, Penalties

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from engine.sampling.sampler import Judged, Sampler

KINDS = (Kind(False, False), Kind(True, False), Kind(True, True))
"""What steps ask for most: recorded, all else is called."""


def fields(rows: int) -> dict[str, tuple[type, tuple[int, ...]]]:
    """Numpy types and shapes of `Asked`, by its names."""
    row = (rows,)
    return {
        "seed": (np.int64, row),
        "position": (np.int64, row),
        "temperature": (np.float32, row),
        "greedy": (np.bool_, row),
        "top_k": (np.int64, row),
        "top_p": (np.float64, row),
        "least": (np.float32, row),
    }


def ask_nothing(host: Mapping[str, NDArray[np.generic]], rows: int, vocab: int) -> None:
    """The first `rows`, of whom those stay so that only fill up."""
    host["temperature"][:rows] = 1.0
    host["greedy"][:rows] = True
    for name, neutral in (("seed", 0), ("position", 0), ("top_k", vocab)):
        host[name][:rows] = neutral
    host["top_p"][:rows], host["least"][:rows] = NO_TOP_P, -math.inf


def ask(
    host: Mapping[str, NDArray[np.generic]], at: int, end: int, item: Judged, vocab: int
) -> None:
    """Rows `at` to `end` are those of `item`; nothing was asked of them before."""
    sampler, params = item.sampler, item.sampler.params
    position = len(item.tokens) - item.prompt_length
    host["seed"][at:end] = sampler.seed
    host["position"][at:end] = np.arange(position, position + end - at)
    host["greedy"][at:end] = sampler.greedy
    if not sampler.greedy:
        host["temperature"][at:end] = sampler.temperature
        host["top_k"][at:end] = min(params.top_k or vocab, vocab)
        host["top_p"][at:end] = NO_TOP_P if params.top_p is None else params.top_p
        host["least"][at:end] = math.log(params.min_p) if params.min_p else -math.inf


def kind_of(samplers: Sequence[Sampler]) -> Kind:
    params = [sampler.params for sampler in samplers]
    noisy = not all(sampler.greedy for sampler in samplers)
    restricted = any(p.top_k or p.min_p or (p.top_p is not None and p.top_p < 1.0) for p in params)
    return Kind(noisy, restricted and noisy)


def penalties_of(
    items: Sequence[Judged], rows: int, vocab: int, device: torch.device, *, room: int = 0
) -> Penalties:
    """For each item a row per draft token and one more; `room` for so many further tokens each."""
    longest = room + max(len(item.tokens) + len(item.draft) for item in items)
    history = np.full((rows, longest), vocab, np.int64)
    completion = np.zeros((rows, longest), np.bool_)
    repetition = np.ones(rows, np.float32)
    further = np.zeros((2, rows), np.float64)
    at = 0
    for item in items:
        params = item.sampler.params
        for row in range(len(item.draft) + 1):
            before = len(item.tokens) + row
            if item.sampler.penalised:
                history[at, :before] = item.tokens + item.draft[:row]
                completion[at, item.prompt_length : before] = True
                repetition[at] = params.repetition_penalty
                further[:, at] = params.presence_penalty, params.frequency_penalty
            at += 1
    arrays = (history, completion, repetition, *further)
    return Penalties(*(to_device(each, device) for each in arrays))


def bias_of(
    items: Sequence[Judged], rows: int, vocab: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [rows, n] int64 and what is added to them [rows, n] float32."""
    most = max(len(item.sampler.biased) for item in items)
    tokens = np.full((rows, most), vocab, np.int64)
    values = np.zeros((rows, most), np.float32)
    at = 0
    for item in items:
        end, biases = at + len(item.draft) + 1, len(item.sampler.biased)
        tokens[at:end, :biases] = item.sampler.biased
        values[at:end, :biases] = item.sampler.bias
        at = end
    return to_device(tokens, device), to_device(values, device)


def to_device(values: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(values).to(device, non_blocking=True)
