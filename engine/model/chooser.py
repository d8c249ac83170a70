"""From a step's logits to verdicts on the device; one copy out at the end.

What every request of a step asks for travels in one copy. Penalties, bias and grammars' masks,
whose sizes differ from step to step, are sent and applied beside what is recorded.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from engine.model.step_buffers import Twins
from engine.sampling.choosing import (
    NO_TOP_P,
    Asked,
    Kind,
    Penalties,
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

KINDS = (Kind(False, False), Kind(True, False), Kind(True, True))
"""What steps ask for most: recorded, all else is called."""
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
                "seed": (np.int64, row),
                "position": (np.int64, row),
                "temperature": (np.float32, row),
                "greedy": (np.bool_, row),
                "top_k": (np.int64, row),
                "top_p": (np.float64, row),
                "least": (np.float32, row),
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
        params = [sampler.params for sampler in samplers]
        kind = Kind(
            noisy=not all(sampler.greedy for sampler in samplers),
            restricted=any(
                p.top_k or p.min_p or (p.top_p is not None and p.top_p < 1.0) for p in params
            ),
        )
        kind = kind._replace(restricted=kind.restricted and kind.noisy)
        way = _Way(rows, kind, any(sampler.wants_logprobs for sampler in samplers))
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
        host["temperature"][:rows] = 1.0
        host["greedy"][:rows] = True
        for name, neutral in (("seed", 0), ("position", 0), ("top_k", self._vocab)):
            host[name][:rows] = neutral
        host["top_p"][:rows], host["least"][:rows] = NO_TOP_P, -math.inf
        host["follows"][:rows] = BEHIND_DRAFT
        host["first"][:rows] = np.arange(rows)
        at = 0
        for item in items:
            sampler, params, end = item.sampler, item.sampler.params, at + len(item.draft) + 1
            position = len(item.tokens) - item.prompt_length
            host["seed"][at:end] = sampler.seed
            host["position"][at:end] = np.arange(position, position + end - at)
            host["greedy"][at:end] = sampler.greedy
            host["follows"][at : end - 1] = item.draft
            host["first"][at:end] = at
            if not sampler.greedy:
                host["temperature"][at:end] = sampler.temperature
                host["top_k"][at:end] = min(params.top_k or self._vocab, self._vocab)
                host["top_p"][at:end] = NO_TOP_P if params.top_p is None else params.top_p
                host["least"][at:end] = math.log(params.min_p) if params.min_p else -math.inf
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
        with torch.inference_mode():
            x = self._logits.narrow(0, 0, rows).float()
            if masks:
                x = masked(x, self._masks(items, rows))
            if penalties:
                x = penalised(x, self._penalties(items, rows))
            if bias:
                x = biased(x, *self._bias(items, rows))
        return x

    def _to_device(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values).to(self._logits.device, non_blocking=True)

    def _masks(self, items: Sequence[Judged], rows: int) -> torch.Tensor:
        words = np.full((rows, -(-self._vocab // 32)), -1, np.int32)
        at = 0
        for item in items:
            end = at + len(item.draft) + 1
            if item.masks is not None:
                words[at:end] = item.masks.view(np.int32)
            at = end
        return self._to_device(words)

    def _penalties(self, items: Sequence[Judged], rows: int) -> Penalties:
        longest = max(len(item.tokens) + len(item.draft) for item in items)
        history = np.full((rows, longest), self._vocab, np.int64)
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
        return Penalties(
            *(self._to_device(each) for each in (history, completion, repetition, *further))
        )

    def _bias(self, items: Sequence[Judged], rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        most = max(len(item.sampler.biased) for item in items)
        tokens = np.full((rows, most), self._vocab, np.int64)
        values = np.zeros((rows, most), np.float32)
        at = 0
        for item in items:
            end, biases = at + len(item.draft) + 1, len(item.sampler.biased)
            tokens[at:end, :biases] = item.sampler.biased
            values[at:end, :biases] = item.sampler.bias
            at = end
        return self._to_device(tokens), self._to_device(values)
