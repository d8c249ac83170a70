"""One model, its KV cache, and a forward pass over spans of tokens."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from engine.model.batch import Span, build_input
from engine.scheduling.draft_length import StepCost

if TYPE_CHECKING:
    import torch

    from engine.model.kv_cache import KVCache
    from engine.model.llama import LlamaModel

PROFILE_ROWS = (1, 2, 4, 8, 16, 32, 64)
PROFILE_ROUNDS = 5
"""Rounds over all row counts; the fastest of each counts: a busy moment spoils no figure."""
PROFILE_WIDTH = 8
"""Rows per sequence in a profiled step, as when drafts are verified."""
PROFILE_CONTEXT = 128
"""Tokens of context in a profiled step: a short answer's middle."""
PROFILE_BUDGET_S = 4.0
"""No further round begins after this long."""


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
        """Time steps of several row counts. Overwrites the cache.

        Also the warm-up: the first round, in which memory is first touched, does not count.
        """
        needed = -(-PROFILE_CONTEXT // self._cache.block_size)
        table = list(range(min(num_blocks, needed)))
        end = min(len(table) * self._cache.block_size, self.model.shape.context)
        fastest = dict.fromkeys(PROFILE_ROWS, float("inf"))
        started = time.perf_counter()
        for number in range(PROFILE_ROUNDS + 1):
            for rows in PROFILE_ROWS:
                width = min(rows, PROFILE_WIDTH, end)
                span = Span([0] * width, end - width, table, 0)
                begin = time.perf_counter()
                self.run([span] * (rows // width))
                if number:
                    fastest[rows] = min(fastest[rows], time.perf_counter() - begin)
            if number and time.perf_counter() - started > PROFILE_BUDGET_S:
                break
        return StepCost(list(fastest.items()))
