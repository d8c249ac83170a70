"""One model, its KV cache, and a forward pass over spans of tokens."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from engine.batch import Span, build_input
from engine.draft_length import StepCost

if TYPE_CHECKING:
    import torch

    from engine.kv_cache import KVCache
    from engine.model import LlamaModel

PROFILE_ROWS = (1, 2, 4, 8, 16, 32, 64)
PROFILE_REPEATS = 3
PROFILE_CONTEXT = 128
"""Tokens of context in a profiled step: a short answer's middle."""


class Runner:
    """Runs steps; the only place where a model and its cache meet."""

    def __init__(self, model: LlamaModel, cache: KVCache) -> None:
        self.model = model
        self._cache = cache

    def run(self, spans: list[Span]) -> torch.Tensor:
        """Logits [rows wanted, vocab] of `spans`, in their order. Mutates the KV cache."""
        step = build_input(
            spans,
            block_size=self._cache.block_size,
            groups=self.model.groups,
            dtype=self.model.dtype,
            device=self.model.device,
        )
        return self.model.forward(step, self._cache)

    def profile(self, num_blocks: int) -> StepCost:
        """Time steps of several row counts, each row another sequence's. Overwrites the cache.

        Also the warm-up: the first passes of each shape are not counted.
        """
        points: list[tuple[int, float]] = []
        needed = -(-PROFILE_CONTEXT // self._cache.block_size)
        context = min(num_blocks, needed) * self._cache.block_size
        table = list(range(min(num_blocks, needed)))
        for rows in PROFILE_ROWS:
            spans = [Span([0], context - 1, table, 0)] * rows
            times: list[float] = []
            for _ in range(PROFILE_REPEATS + 1):
                begin = time.perf_counter()
                self.run(spans)
                times.append(time.perf_counter() - begin)
            points.append((rows, min(times[1:])))
        return StepCost(points)
