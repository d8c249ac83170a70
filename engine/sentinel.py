"""Recomputes a step that has just been made, in another shape, and compares bit for bit.

Exact mode rests on kernels that give a row the same bits in any company. Tests show it before
anything is served; this keeps looking on the machine and at the loads where it counts: a step's row
is computed once more, as part of a longer cut and beside rows of another text, and its logits must
be the same bits. A difference changes no text by itself, and nothing is stopped: it is logged with
what is needed to look into it, and counted. While there is nothing to do, the last step is computed
again and again, each time in another shape.

No live sequence is disturbed: full blocks before the row are only read, everything from the last
border between blocks on is recomputed into blocks that are the sentinel's own.
"""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from engine.model.batch import NARROW, Span

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from engine.model.runner import StepRunner

log = logging.getLogger(__name__)

SCRATCH_BLOCKS = 3
"""Blocks of its own, of at least 16 tokens: two for a draft of 16, its last token and what stands
before these in the same block, one for the company.
"""
SHARE = 0.005
"""Most of the engine's time that checking may take."""
IDLE_SHARE = 0.01
"""The same while there is nothing else to do: a request may come, and power costs too."""
FIRST_COST_S = 0.05
"""What a check is taken to cost before the first one: so that it is not the first thing done."""
COMPANY = 16
"""Most rows beside."""


class Watched(NamedTuple):
    """One sequence's part of a step."""

    span: Span
    tokens: Sequence[int]
    """The sequence's committed tokens, by now perhaps more than there were in the step."""
    logits: NDArray[np.uint8]  # [rows wanted, bytes of a row]


class Sentinel:
    """Watches one runner. Used by the engine's thread only, between two steps.

    The step watched must be the runner's last: its keys are then still there, even those of
    sequences that ended in it, because a freed block keeps its contents until it is handed out.
    """

    def __init__(
        self,
        runner: StepRunner,
        *,
        first_block: int,
        block_size: int,
        setting: str,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`first_block`: of SCRATCH_BLOCKS that nobody else uses. `setting`: for the log."""
        self._runner = runner
        self._first_block = first_block
        self._block_size = block_size
        self._setting = setting
        self._clock = clock
        self._random = random.Random(0)
        self._started = clock()
        self._spent = 0.0
        self._cost = FIRST_COST_S
        self._idle_from = self._started
        """No check while idle before then."""
        self.checks = 0
        self.mismatches = 0
        self._last: tuple[Sequence[Span], Sequence[Sequence[int]], Any] | None = None
        """The runner's last step, while its logits are there to compare with."""
        self._recent: Watched | None = None
        """Of the last step: what was compared."""

    def watch(self, spans: Sequence[Span], tokens: Sequence[Sequence[int]], logits: Any) -> None:
        """After a step: check one of its sequences, if that is within the share of time.

        `tokens`: each span's sequence's committed ones. `logits`: as the runner's `run` gave them;
        they are lost when a check is made.
        """
        self._last, self._recent = (spans, tokens, logits), None
        begin = self._clock()
        if self._spent + self._cost > SHARE * (begin - self._started):
            return
        self._check_last()
        self._cost = self._clock() - begin
        self._spent += self._cost

    def idle(self) -> None:
        """With nothing else to do, and no step since the last `watch`: check its step once more."""
        begin = self._clock()
        if begin < self._idle_from:
            return
        if self._recent is not None:
            self._check(self._recent)
        else:
            self._check_last()
        end = self._clock()
        self._idle_from = end + (end - begin) / IDLE_SHARE

    def close(self) -> None:
        """Say what was found."""
        log.info("sentinel: %d checks, %d mismatches", self.checks, self.mismatches)

    def _check_last(self) -> None:
        """Of the last step, one sequence, if any can be compared."""
        if self._last is None:
            return
        self._recent = self._choose(*self._last)
        self._last = None
        if self._recent is not None:
            self._check(self._recent)

    def _choose(
        self, spans: Sequence[Span], tokens: Sequence[Sequence[int]], logits: Any
    ) -> Watched | None:
        """A sequence whose logits were wanted; None where there is none, or where its values are no
        numbers, which have no bits to promise.
        """
        wanted = [len(span.tokens) - span.logits_from for span in spans]
        candidates = [n for n, rows in enumerate(wanted) if 0 < rows <= NARROW]
        if not candidates:
            return None
        chosen = self._random.choice(candidates)
        first = sum(wanted[:chosen])
        rows = logits[first : first + wanted[chosen]]
        if not np.isfinite(_numbers(rows)).all():
            return None
        return Watched(spans[chosen], tokens[chosen], _bits(rows).copy())

    def _check(self, watched: Watched) -> None:
        span, rows = watched.span, len(watched.logits)
        probe = self._probe(span, watched.tokens, rows)
        beside = self._random.randint(1, min(COMPANY, self._block_size))
        others = (probe.tokens[::-1] * beside)[:beside]
        company = Span(others, 0, [self._first_block + SCRATCH_BLOCKS - 1], beside)
        together = [probe, company] if self._random.random() < 0.5 else [company, probe]
        again = self._runner.run(together)
        self.checks += 1
        # Bits first: rows that are the same cost one comparison.
        if not np.array_equal(_bits(again), watched.logits):
            self.mismatches += 1
            self._report(watched, probe, company, again)

    def _probe(self, span: Span, tokens: Sequence[int], rows: int) -> Span:
        """The last `rows` rows of `span`, cut at the border between blocks before them."""
        size = self._block_size
        first = span.start + len(span.tokens) - rows
        begin = first // size * size
        before = list(tokens[begin : span.start])
        again = before + span.tokens[max(begin - span.start, 0) :]
        own = range(self._first_block, self._first_block - (-len(again) // size))
        return Span(again, begin, [*span.block_table[: begin // size], *own], len(again) - rows)

    def _report(self, watched: Watched, probe: Span, company: Span, again: Any) -> None:
        """In full the first time, then the count, ever more rarely."""
        if self.mismatches > 1:
            if self.mismatches & (self.mismatches - 1) == 0:
                log.error("sentinel: %d mismatches in %d checks", self.mismatches, self.checks)
            return
        other = _bits(again) != watched.logits
        span = watched.span
        log.error(
            "sentinel: a step gives other bits in another shape, so texts may depend on their"
            " company; %s. The step: %d rows from position %d, cut %d rows long. Again: cut %d rows"
            " long from position %d, beside %d rows. Differing: rows %s, %d of %d bytes. Tokens"
            " from there: %s. Further mismatches are only counted",
            self._setting,
            len(watched.logits),
            span.start + len(span.tokens) - len(watched.logits),
            len(span.tokens),
            len(probe.tokens),
            probe.start,
            len(company.tokens),
            other.any(1).nonzero()[0].tolist(),
            int(other.sum()),
            other.size,
            probe.tokens,
        )


def _numbers(rows: Any) -> NDArray[np.float32]:
    """[rows, vocab] of numpy or torch."""
    return rows if isinstance(rows, np.ndarray) else rows.float().cpu().numpy()


def _bits(rows: Any) -> NDArray[np.uint8]:
    """[rows, vocab] of numpy or torch, as bytes [rows, bytes of a row]."""
    if isinstance(rows, np.ndarray):
        return np.ascontiguousarray(rows).view(np.uint8)
    import torch

    return rows.contiguous().view(torch.uint8).cpu().numpy()
