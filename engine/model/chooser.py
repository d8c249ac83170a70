"""From a step's logits to verdicts on the device; one copy out at the end.

What every request of a step asks for travels in one copy. Penalties, bias and grammars' masks,
whose sizes differ from step to step, are sent and applied beside what is recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from engine.model.asking import (
    KINDS,
    ask,
    ask_nothing,
    bias_of,
    fields,
    kind_of,
    penalties_of,
    to_device,
)
from engine.model.step_buffers import Twins
from engine.sampling.choosing import (
    Asked,
    Kind,
    agreed,
    biased,
    choose,
    logprobs,
    masked,
    penalised,
)
from engine.sampling.sampler import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.kernels.device import DeviceKernels
    from engine.model.graphs import Graphs
    from engine.sampling.sampler import Judged

BEHIND_DRAFT = -1


class _Way(NamedTuple):
    """How a step's tokens are chosen, with which recorded work is found again."""

    rows: int
    kind: Kind
    logprobs: bool


class Chooser:
    """Chooses from logits [most_rows, vocab] that a runner writes in place."""

    def __init__(
        self, logits: torch.Tensor, kernels: DeviceKernels, graphs: Graphs, sizes: Sequence[int]
    ) -> None:
        """`sizes`: numbers of rows that are recorded, growing; the last is that of `logits`."""
        self._logits, self._kernels, self._graphs, self._sizes = logits, kernels, graphs, sizes
        self._rows, self._vocab = logits.shape
        row, device = (self._rows,), logits.device
        self._asked = Twins(
            {
                **fields(self._rows),
                "follows": (np.int64, row),
                "first": (np.int64, row),
            },
            device,
        )
        # Token, whether it counts, whether it is one, and the bits of its logprob.
        self._said = torch.zeros((4, self._rows), dtype=torch.int64, device=device)
        pinned = torch.cuda.is_available()
        self._heard = torch.zeros((4, self._rows), dtype=torch.int64, pin_memory=pinned)

    def record(self) -> None:
        """The usual ways, for every number of rows."""
        for rows in self._sizes:
            for kind in KINDS:
                way = _Way(rows, kind, logprobs=False)
                self._fill([], rows)
                self._graphs.record(way, lambda way=way: self._choose(way, None))

    def launch(self, items: Sequence[Judged]) -> int:
        """Have the device choose; returns how many rows, before it is done."""
        count = sum(len(item.draft) + 1 for item in items)
        rows = next(size for size in self._sizes if size >= count)
        self._fill(items, rows)
        samplers = [item.sampler for item in items]
        way = _Way(rows, kind_of(samplers), any(s.wants_logprobs for s in samplers))
        changed = self._change(items, rows)
        if changed is None:
            self._graphs.run(way, lambda: self._choose(way, None))
        else:
            with torch.inference_mode():
                self._choose(way, changed)
        return count

    def verdicts(self, items: Sequence[Judged]) -> list[Verdict]:
        """Of the last launch: the one wait of a step."""
        self._heard.copy_(self._said, non_blocking=True)
        if self._said.device.type == "cuda":
            torch.cuda.current_stream(self._said.device).synchronize()
        heard = self._heard.numpy()
        tokens, counts, numbers = heard[:3].tolist()
        logs = heard[3].view(np.float64).tolist()
        found: list[Verdict] = []
        first = 0
        for item in items:
            rows = range(first, first + len(item.draft) + 1)
            first = rows.stop
            said = [row for row in rows if counts[row]]
            broken = next((row for row in said if not numbers[row]), None)
            if broken is not None:
                said = [row for row in said if row < broken]
            chances = [logs[row] for row in said] if item.sampler.wants_logprobs else None
            accepted = len(said) - (broken is None)
            found.append(
                Verdict([tokens[row] for row in said], accepted, chances, broken is not None)
            )
        return found

    def _fill(self, items: Sequence[Judged], rows: int) -> None:
        host = {name: self._asked.host(name) for name in self._asked.names}
        ask_nothing(host, rows, self._vocab)
        host["follows"][:rows] = BEHIND_DRAFT
        host["first"][:rows] = np.arange(rows)
        at = 0
        for item in items:
            end = at + len(item.draft) + 1
            ask(host, at, end, item, self._vocab)
            host["follows"][at : end - 1] = item.draft
            host["first"][at:end] = at
            at = end
        self._asked.send()

    def _choose(self, way: _Way, changed: torch.Tensor | None) -> None:
        def asked(name: str) -> torch.Tensor:
            return self._asked.device(name).narrow(0, 0, way.rows)

        raw = self._logits.narrow(0, 0, way.rows).float()
        x = raw if changed is None else changed
        # NaN and plus infinity are the largest where there are any; without any token that a mask
        # allows minus infinity is.
        numbers = raw.amax(1).isfinite() & x.amax(1).isfinite()
        tokens = choose(x, Asked(*(asked(name) for name in Asked._fields)), way.kind, self._kernels)
        counts = agreed(tokens, asked("follows"), asked("first"))
        logs = (
            logprobs(raw, tokens) if way.logprobs else torch.zeros_like(raw.select(1, 0)).double()
        )
        said = torch.stack([tokens, counts.long(), numbers.long(), logs.view(torch.int64)])
        self._said.narrow(1, 0, way.rows).copy_(said)

    def _change(self, items: Sequence[Judged], rows: int) -> torch.Tensor | None:
        """Logits with what sampler.py applies before it chooses; None where nobody asks for any."""
        samplers = [item.sampler for item in items]
        masks = any(item.masks is not None for item in items)
        penalties = any(sampler.penalised for sampler in samplers)
        bias = any(len(sampler.biased) for sampler in samplers)
        if not (masks or penalties or bias):
            return None
        device = self._logits.device
        with torch.inference_mode():
            x = self._logits.narrow(0, 0, rows).float()
            if masks:
                x = masked(x, self._masks(items, rows))
            if penalties:
                x = penalised(x, penalties_of(items, rows, self._vocab, device))
            if bias:
                x = biased(x, *bias_of(items, rows, self._vocab, device))
        return x

    def _masks(self, items: Sequence[Judged], rows: int) -> torch.Tensor:
        words = np.full((rows, -(-self._vocab // 32)), -1, np.int32)
        at = 0
        for item in items:
            end = at + len(item.draft) + 1
            if item.masks is not None:
                words[at:end] = item.masks.view(np.int32)
            at = end
        return to_device(words, self._logits.device)
