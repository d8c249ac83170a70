"""One model, its KV cache, and a forward pass over spans of tokens."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from engine.model.batch import Span, build_input
from engine.scheduling.draft_length import StepCost

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from engine.model.kv_cache import KVCache
    from engine.model.llama import LlamaModel, ModelShape
    from engine.sampling.sampler import Judged, Verdict

PROFILE_ROWS = (1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 48, 64)
PROFILE_ROUNDS = 5
"""Rounds over all row counts; the fastest of each counts: a busy moment spoils no figure."""
PROFILE_WIDTH = 8
"""Rows per sequence in a profiled step, as when drafts are verified."""
PROFILE_CONTEXT = 128
"""Tokens of context in a profiled step: a short answer's middle."""
PROFILE_BUDGET_S = 4.0
"""No further round begins after this long."""


class HasShape(Protocol):
    shape: ModelShape


class StepRunner(Protocol):
    """A model with its cache, and the way tokens are chosen from its logits. Used by one thread.

    `Runner` is torch on CPUs, `NativeRunner` our own kernels there, `GraphRunner` torch on GPUs.
    """

    broken: frozenset[int]
    """Spans of the last run in which a row's values were no numbers."""

    @property
    def model(self) -> HasShape: ...

    def run(self, spans: list[Span]) -> Any:
        """Logits of the rows wanted, for `judge` alone; valid until the next run."""
        ...

    def judge(self, logits: Any, items: Sequence[Judged]) -> list[Verdict]:
        """Verdicts on what follows each item's tokens; for each a row per draft token and one."""
        ...

    def shares(self, forward: float, judged: float) -> tuple[float, float]:
        """What `run` and then `judge` took by the caller's clock, as seconds of computing rows and
        of choosing tokens: `run` may return before it is done.
        """
        ...

    def last_parts(self) -> dict[str, float]:
        """Seconds of the last run by what they were spent on; empty where it is not known."""
        ...

    def profile(self, num_blocks: int) -> StepCost: ...

    def close(self) -> None: ...


class Runner:
    """Runs steps; the only place where a model and its cache meet."""

    def __init__(self, model: LlamaModel, cache: KVCache) -> None:
        self.model = model
        self._cache = cache
        self.broken: frozenset[int] = frozenset()
        """Spans whose values were no numbers; here that shows in logits alone."""

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

    def judge(self, logits: torch.Tensor, items: Sequence[Judged]) -> list[Verdict]:
        """Verdicts on what follows each item's tokens; see `Sampler.verify`.

        `logits` as `run` gave them: for each item a row per draft token and one more.
        """
        verdicts: list[Verdict] = []
        row = 0
        for item in items:
            count = len(item.draft) + 1
            sampler, tokens, prompt_length, draft, masks = item
            rows = logits[row : row + count]
            verdicts.append(sampler.verify(rows, tokens, prompt_length, draft, masks))
            row += count
        return verdicts

    def shares(self, forward: float, judged: float) -> tuple[float, float]:
        return forward, judged

    def last_parts(self) -> dict[str, float]:
        return {}

    def profile(self, num_blocks: int) -> StepCost:
        """Time steps of several row counts, as `profiled` does. Overwrites the cache."""
        return profiled(self.run, num_blocks, self._cache.block_size, self.model.shape.context)

    def close(self) -> None:
        """Nothing to give back that Python does not."""


def profiled(
    run: Callable[[list[Span]], object], num_blocks: int, block_size: int, context: int
) -> StepCost:
    """Seconds of steps of several row counts.

    Also the warm-up: the first round, in which memory is first touched, does not count.
    """
    needed = -(-PROFILE_CONTEXT // block_size)
    table = list(range(min(num_blocks, needed)))
    end = min(len(table) * block_size, context)
    fastest = dict.fromkeys(PROFILE_ROWS, float("inf"))
    started = time.perf_counter()
    for number in range(PROFILE_ROUNDS + 1):
        for rows in PROFILE_ROWS:
            width = min(rows, PROFILE_WIDTH, end)
            span = Span([0] * width, end - width, table, 0)
            rest = rows % width
            spans = [span] * (rows // width)
            if rest:
                spans.append(Span([0] * rest, end - rest, table, 0))
            begin = time.perf_counter()
            run(spans)
            if number:
                fastest[rows] = min(fastest[rows], time.perf_counter() - begin)
        if number and time.perf_counter() - started > PROFILE_BUDGET_S:
            break
    return StepCost(list(fastest.items()))
