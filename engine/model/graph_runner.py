"""A `StepRunner` for GPUs: forward pass and choice of tokens are one replay each.

A step is: fill and send its rows (one copy), replay the forward pass, fill and send what is asked
for (one copy), replay the choice, wait for the tokens (one copy out). Nothing in between waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from engine.errors import IntegrityError
from engine.model.chooser import Chooser
from engine.model.graphs import Graphs
from engine.model.runner import profiled
from engine.model.step_buffers import Shape, StepBuffers
from engine.model.torch_head import HeadCache

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.kernels.device import DeviceKernels
    from engine.model.batch import Span
    from engine.model.kv_cache import KVCache
    from engine.model.llama import LlamaModel
    from engine.model.torch_head import TorchHead
    from engine.sampling.sampler import Judged, Verdict
    from engine.scheduling.draft_length import StepCost

USUAL_ROWS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128)
"""Numbers of rows steps are filled up to, where any are as good as others."""
FURTHER_ROWS = 64
"""Beyond these, multiples."""
FEW_WANTED = 64
"""A step with a prompt's chunk in it wants logits of its few decoding rows alone."""
LEAST_SEQUENCES = 16
"""The profile and the sentinel have steps of their own."""


def row_counts(most: int, exact: tuple[int, ...] | None) -> list[int]:
    """Growing numbers of rows to fill steps up to, the last one at least `most`.

    `exact`: those in which a row keeps its bits; all multiples of the largest are as good.
    """
    counts = list(USUAL_ROWS if exact is None else exact)
    further = FURTHER_ROWS if exact is None else exact[-1]
    while counts[-1] < most:
        counts.append(counts[-1] // further * further + further)
    return counts[: next(n for n, count in enumerate(counts) if count >= most) + 1]


class GraphRunner:
    """Runs steps of one model over its cache. Used by one thread only."""

    def __init__(
        self,
        model: LlamaModel,
        cache: KVCache,
        kernels: DeviceKernels,
        *,
        most_rows: int,
        most_sequences: int,
        context: int,
        head: TorchHead | None = None,
    ) -> None:
        """`cache`: its last block is nobody's; rows that only fill up write there. `most_rows` and
        `most_sequences` of a step; `context`: most tokens of a sequence. `head`: a draft head,
        whose keys and values every step writes too.
        """
        self.model = model
        self.broken: frozenset[int] = frozenset()
        """Spans whose values were no numbers; here that shows in logits alone."""
        self._cache, self._kernels = cache, kernels
        self.head_cache: HeadCache | None = None
        """What a `GraphHeadRunner` drafts from; None without a head."""
        if head is not None:
            self.head_cache = HeadCache(
                head, num_blocks=cache.num_blocks, block_size=cache.block_size
            )
        self._counts = row_counts(most_rows, model.row_sizes)
        rows, device = self._counts[-1], model.device
        self._buffers = StepBuffers(
            most_rows=rows,
            most_sequences=max(most_sequences, LEAST_SEQUENCES),
            most_blocks=-(-context // cache.block_size),
            spare_slot=(cache.num_blocks - 1) * cache.block_size,
            nothing_slot=cache.num_blocks * cache.block_size,
            block_size=cache.block_size,
            tile_rows=kernels.tile_rows,
            device=device,
        )
        self._logits = torch.zeros((rows, model.shape.vocab), dtype=model.dtype, device=device)
        self.graphs = Graphs(device)
        """Everything that is recorded over this cache."""
        self._chooser = Chooser(self._logits, kernels, self.graphs, self._counts)
        self._marks = _Marks(device)

    @property
    def recorded(self) -> int:
        """How many steps and choices of tokens are replays."""
        return len(self.graphs)

    def record(self) -> None:
        """Every usual step; takes seconds. What is not recorded runs too, launch by launch."""
        for rows in self._counts:
            for wanted in {rows, min(rows, FEW_WANTED)}:
                shape = Shape(rows, wanted)
                self._buffers.fill([], shape)
                self.graphs.record(shape, lambda shape=shape: self._forward(shape))
        self._chooser.record()

    def run(self, spans: Sequence[Span]) -> torch.Tensor:
        """Logits [rows wanted, vocab] of `spans`, in their order; valid until the next run.

        Returns before they are there. Mutates the KV cache.
        """
        rows = sum(len(span.tokens) for span in spans)
        wanted = sum(len(span.tokens) - span.logits_from for span in spans)
        shape = self._shape(rows, wanted)
        self._buffers.fill(spans, shape)
        self.graphs.run(shape, lambda: self._forward(shape))
        self._marks.computed()
        return self._logits.narrow(0, 0, wanted)

    def judge(self, logits: torch.Tensor, items: Sequence[Judged]) -> list[Verdict]:
        """Verdicts on what follows each item's tokens; see `Sampler.verify`.

        `logits` as the last `run` gave them: for each item a row per draft token and one more.
        """
        if not items:
            return []
        count = self.launch(items)
        if count != len(logits):
            raise IntegrityError(f"{count} rows to judge, but logits of {len(logits)}")
        return self._chooser.verdicts(items)

    def launch(self, items: Sequence[Judged]) -> int:
        """Have tokens chosen from the last run's logits; how many rows are, before it is done."""
        count = self._chooser.launch(items)
        self._marks.chosen()
        return count

    def shares(self, forward: float, judged: float) -> tuple[float, float]:
        """Seconds of computing rows and of choosing tokens, by the device's clock if it has one."""
        return self._marks.shares(forward, judged)

    def last_parts(self) -> dict[str, float]:
        return {}

    def profile(self, num_blocks: int) -> StepCost:
        """Time steps of several row counts, as `profiled` does. Overwrites the cache."""
        return profiled(
            self._run_to_the_end, num_blocks, self._cache.block_size, self.model.shape.context
        )

    def close(self) -> None:
        self.graphs.clear()

    def _run_to_the_end(self, spans: list[Span]) -> None:
        self.run(spans)
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)

    def _shape(self, rows: int, wanted: int) -> Shape:
        if rows > self._counts[-1]:
            raise IntegrityError(f"a step of {rows} rows; at most {self._counts[-1]} were planned")
        filled = next(count for count in self._counts if count >= rows)
        few = min(filled, FEW_WANTED)
        return Shape(filled, few if wanted <= few else filled)

    def _forward(self, shape: Shape) -> None:
        buffers, cache = self._buffers, self._cache
        tiles = buffers.tiles(shape)

        def attend(q: torch.Tensor, layer: int) -> torch.Tensor:
            return self._kernels.attend(q, cache.layers[layer], tiles)

        head = self.head_cache
        tokens, positions, slots = (
            buffers.rows(name, shape) for name in ("tokens", "positions", "slots")
        )
        x = self.model.hidden(
            tokens, positions, slots, cache, attend, head.take if head is not None else None
        )
        if head is not None:
            head.follow(tokens, positions, slots, buffers.rows("before", shape))
        logits = self.model.logits(x.index_select(0, buffers.rows("wanted", shape)))
        self._logits.narrow(0, 0, shape.wanted).copy_(logits)


class _Marks:
    """When a step's parts ended on the device, which the host's clock cannot see."""

    def __init__(self, device: torch.device) -> None:
        self._events: list[torch.cuda.Event] | None = None
        self._both = False
        """Whether the last step chose tokens."""
        if device.type == "cuda" and torch.cuda.is_available():
            self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]

    def computed(self) -> None:
        self._both = False
        self._mark(0)

    def chosen(self) -> None:
        self._both = True
        self._mark(1)

    def _mark(self, number: int) -> None:
        if self._events is not None:
            self._events[number].record()

    def shares(self, forward: float, judged: float) -> tuple[float, float]:
        """Once the device is done with both."""
        if self._events is None or not self._both:
            return forward, judged
        computed, chosen = self._events
        choosing = min(computed.elapsed_time(chosen) / 1000, judged)
        return forward + judged - choosing, choosing
