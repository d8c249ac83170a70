"""Work over memory that stays where it is: recorded once as a CUDA graph, then replayed.

A launch takes the host some microseconds, a decoding step has hundreds of them, and the device is
done with each sooner than the next one comes. A recorded step is one launch. Where nothing can be
recorded the same work is done by calling it, so that what a replay relies on (everything in fixed
buffers, filled up to a fixed size, written in place) is relied on everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

WARM_UPS = 2
"""Calls before recording: kernels are compiled and libraries take their workspace in them."""


class Graphs:
    """Recorded work by key. All of it shares one pool of memory: one replay at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._recorded: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self._pool: Any = None

    def __len__(self) -> int:
        return len(self._recorded)

    @torch.inference_mode()
    def record(self, key: Hashable, work: Callable[[], None]) -> None:
        """`work` reads and writes fixed buffers alone, and is called for that a few times. Where
        there are no graphs, nothing happens.
        """
        if self._device.type != "cuda":
            return
        aside = torch.cuda.Stream(self._device)
        aside.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(aside):
            for _ in range(WARM_UPS):
                work()
        torch.cuda.current_stream(self._device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            work()
        self._pool = self._pool or graph.pool()
        self._recorded[key] = graph

    @torch.inference_mode()
    def run(self, key: Hashable, work: Callable[[], None]) -> None:
        """What was recorded under `key`, else `work` itself. Returns before a device is done."""
        graph = self._recorded.get(key)
        if graph is None:
            work()
        else:
            graph.replay()

    def clear(self) -> None:
        self._recorded.clear()
        self._pool = None
