"""From target logits to tokens, and which drafts they agree with.

Verification rule (agreement, Gumbel-coupled): the token at a position is argmax(x + g), where x are
the processed target logits and g is Gumbel noise that depends on (seed, position, token) alone; by
the Gumbel-max theorem it has exactly the target's distribution. A draft token is *accepted* iff it
is that token. The first token that differs is the *recovered* token; after a fully accepted draft
the last row gives the *bonus* token. So the text is a function of (seed, target) only, whatever was
drafted. Greedy decoding (temperature 0) is the same rule without noise.

Rows are judged one after another and only up to the first rejection, in numpy: a row is small, and
numpy's reductions over it are several times faster than torch's on the CPU.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from engine.sampling.noise import Indices, NoiseSource

if TYPE_CHECKING:
    from engine.sampling.grammar import Masks
    from engine.sampling.params import SamplingParams

Row: TypeAlias = NDArray[np.float32]  # [vocab]

LEAST_TEMPERATURE = 1e-5
"""Below this, dividing by it leaves single precision; only the largest logit counts there."""
NUCLEUS_DEPTHS = (8.0, 16.0, 32.0)
"""Distances from the largest logit within which top-k and top-p look first, before everywhere."""


class Verdict(NamedTuple):
    """Outcome of one verification for one sequence."""

    tokens: list[int]
    """Accepted draft tokens, then the recovered or bonus token."""
    accepted: int
    logprobs: list[float] | None
    failed: bool = False
    """A row's logits were no numbers: `tokens` are those before it, and nothing can follow."""
    alternatives: list[list[tuple[int, float]]] | None = None
    """Of each token (alternatives.py); None where they are not wanted."""


class Judged(NamedTuple):
    """What a verification judges: `draft`, which followed `tokens`."""

    sampler: Sampler
    tokens: list[int]
    prompt_length: int
    draft: list[int]
    masks: Masks | None = None
    """Which tokens a grammar allows, for a row per draft token and one more; None: all."""


class Sampler:
    """Chooses tokens of one sequence. Owns its noise; reads, never keeps, its token history."""

    def __init__(self, params: SamplingParams, seed: int, vocab: int) -> None:
        self.params = params
        self.seed = seed
        self.vocab = vocab
        self.temperature = 1.0 if params.temperature is None else params.temperature
        self.greedy = self.temperature < LEAST_TEMPERATURE
        self.biased = np.array(list(params.logit_bias), np.int32)
        self.bias = np.array(list(params.logit_bias.values()), np.float32)
        self._noise = NoiseSource(seed, vocab)
        self.penalised = (
            params.repetition_penalty != 1.0
            or params.presence_penalty != 0.0
            or params.frequency_penalty != 0.0
        )
        self.native: NDArray[np.void] | None = None
        """The same for the CPU kernels, kept here by model/native.py."""

    @property
    def wants_logprobs(self) -> bool:
        return self.params.logprobs

    def verify(
        self,
        logits: torch.Tensor,
        tokens: list[int],
        prompt_length: int,
        draft: list[int],
        masks: Masks | None = None,
    ) -> Verdict:
        """Judge `draft`, which followed `tokens`; logits [len(draft) + 1, vocab], any dtype."""
        chosen: list[int] = []
        logprobs: list[float] | None = [] if self.params.logprobs else None
        history = list(tokens) if self.penalised and draft else tokens
        position = len(tokens) - prompt_length
        for row in range(len(draft) + 1):
            x = logits[row] if masks is None else masked(logits[row], masks[row])
            # NaN and plus infinity are the largest where there are any; without any token that a
            # mask allows minus infinity is.
            if not (logits[row].max().isfinite() and x.max().isfinite()):
                return Verdict(chosen, len(chosen), logprobs, failed=True)
            token = self.choose(x, history, prompt_length, position + row)
            chosen.append(token)
            if logprobs is not None:
                logprobs.append(_logprob(_row(logits[row]), token))
            if row == len(draft) or token != draft[row]:
                break
            if self.penalised:
                history.append(token)
        return Verdict(chosen, len(chosen) - 1, logprobs)

    def choose(
        self, logits: torch.Tensor, history: list[int], prompt_length: int, position: int
    ) -> int:
        """Token number `position` of the completion. logits [vocab], any dtype, not changed."""
        x = _row(logits)
        if self.penalised or self.params.logit_bias:
            x = self._process(x, history, prompt_length)
        if self.greedy:
            return int(x.argmax())
        x = x / np.float32(self.temperature)
        kept = self._restrict(x)
        if kept is None:
            return int((x + self._noise.at(position)).argmax())
        return int(kept[(x[kept] + self._noise.at(position, kept)).argmax()])

    def _process(self, x: Row, history: list[int], prompt_length: int) -> Row:
        """Penalties and bias, on a copy. Repetition (Keskar et al. 2019) counts the prompt too,
        presence and frequency (OpenAI) the completion only."""
        params = self.params
        x = x.copy()
        if params.repetition_penalty != 1.0:
            seen = np.unique(np.array(history, np.int64))
            penalty = np.float32(params.repetition_penalty)
            x[seen] = np.where(x[seen] > 0, x[seen] / penalty, x[seen] * penalty)
        if params.presence_penalty or params.frequency_penalty:
            seen, counts = np.unique(
                np.array(history[prompt_length:], np.int64), return_counts=True
            )
            x[seen] -= (params.presence_penalty + params.frequency_penalty * counts).astype(
                np.float32
            )
        x[self.biased] += self.bias
        return x

    def _restrict(self, x: Row) -> Indices | None:
        """Tokens that top-k, top-p and min-p leave, lowest first; None: all of them."""
        params = self.params
        kept: Indices | None = None
        if params.top_k and params.top_k < len(x):
            kept = top_k(x, params.top_k)
        if params.top_p is not None and params.top_p < 1.0:
            kept = top_p(x, params.top_p) if kept is None else kept[top_p(x[kept], params.top_p)]
        if params.min_p:
            # p >= min_p * p_max is a distance in logits: no normalisation needed.
            edge = x.max() + math.log(params.min_p)
            kept = np.flatnonzero(x >= edge) if kept is None else kept[x[kept] >= edge]
        return kept


def masked(logits: torch.Tensor, mask: NDArray[np.uint32]) -> torch.Tensor:
    """A copy in which only the tokens whose bit is set can be chosen. logits [vocab]."""
    bits = np.unpackbits(mask.view(np.uint8), count=len(logits), bitorder="little")
    ruled_out = torch.from_numpy(bits == 0).to(logits.device)
    return logits.masked_fill(ruled_out, -math.inf)


def top_k(x: Row, k: int) -> Indices:
    """The k largest, lowest index first; ties at the edge go to the lower index. k <= len(x)."""
    for depth in NUCLEUS_DEPTHS:
        pool = np.flatnonzero(x > x.max() - depth)
        if len(pool) >= k:
            break
    else:
        pool = np.arange(len(x))
    return np.sort(pool[_descending(x[pool])[:k]])


def top_p(x: Row, mass: float) -> Indices:
    """The fewest most probable tokens whose softmax mass reaches `mass`, lowest index first."""
    highest = x.max()
    need = mass * float(np.exp(x - highest).sum(dtype=np.float64))
    for depth in (*NUCLEUS_DEPTHS, math.inf):
        pool = np.flatnonzero(x > highest - depth)
        order = pool[_descending(x[pool])]
        reached = np.exp(x[order] - highest).cumsum(dtype=np.float64)
        count = int(np.searchsorted(reached, need)) + 1
        if count <= len(order):
            return np.sort(order[:count])
    # Only rounding keeps the whole vocabulary under its own mass.
    return np.arange(len(x))


def _descending(values: Row) -> Indices:
    """Order by value, largest first, then by index."""
    return np.argsort(-values, kind="stable")


def _row(logits: torch.Tensor) -> Row:
    return logits.float().cpu().numpy()


def _logprob(x: Row, token: int) -> float:
    """Log of the model's own probability: before temperature, penalties and restrictions."""
    shifted = (x - x.max()).astype(np.float64)
    return float(shifted[token] - np.log(np.exp(shifted).sum()))
