"""From target logits to tokens, and which drafts they agree with.

Verification rule (agreement, Gumbel-coupled): the token at a position is argmax(x + g), where x are
the processed target logits and g is Gumbel noise that depends on (seed, position, token) alone; by
the Gumbel-max theorem it has exactly the target's distribution. A draft token is *accepted* iff it
is that token. The first token that differs is the *recovered* token; after a fully accepted draft
the last row gives the *bonus* token. So the text is a function of (seed, target) only, whatever was
drafted. Greedy decoding (temperature 0) is the same rule without noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from engine.noise import NoiseSource

if TYPE_CHECKING:
    from engine.sampling import SamplingParams

TOP_P_CANDIDATES = 1024
"""Sorted first for top-p; the whole vocabulary only where these do not hold enough mass."""


class Verdict(NamedTuple):
    """Outcome of one verification for one sequence."""

    tokens: list[int]
    """Accepted draft tokens, then the recovered or bonus token."""
    accepted: int
    logprobs: list[float] | None


class Sampler:
    """Chooses tokens of one sequence. Owns its noise; reads, never keeps, its token history."""

    def __init__(self, params: SamplingParams, seed: int, vocab: int) -> None:
        self._params = params
        self._temperature = 1.0 if params.temperature is None else params.temperature
        self._noise = NoiseSource(seed, vocab)
        self._bias = params.logit_bias
        self._penalised = (
            params.repetition_penalty != 1.0
            or params.presence_penalty != 0.0
            or params.frequency_penalty != 0.0
        )

    def verify(
        self, logits: torch.Tensor, tokens: list[int], prompt_length: int, draft: list[int]
    ) -> Verdict:
        """Judge `draft`, which followed `tokens`; logits [len(draft) + 1, vocab], any dtype."""
        chosen: list[int] = []
        logprobs: list[float] | None = [] if self._params.logprobs else None
        history = tokens
        if self._penalised and draft:
            history = list(tokens)
        position = len(tokens) - prompt_length
        for row in range(len(draft) + 1):
            token = self.choose(logits[row], history, prompt_length, position + row)
            chosen.append(token)
            if logprobs is not None:
                logprobs.append(float(torch.log_softmax(logits[row].float(), dim=0)[token]))
            if row == len(draft) or token != draft[row]:
                break
            if self._penalised:
                history.append(token)
        return Verdict(chosen, len(chosen) - 1, logprobs)

    def choose(
        self, logits: torch.Tensor, history: list[int], prompt_length: int, position: int
    ) -> int:
        """Token number `position` of the completion. logits [vocab], not changed."""
        if self._penalised or self._bias:
            logits = self._process(logits.float(), history, prompt_length)
        if self._temperature == 0.0:
            return int(logits.argmax())
        x = logits.float() / self._temperature
        noise = self._noise.at(position)
        kept = self._restrict(x)
        if kept is None:
            return int((x + noise).argmax())
        return int(kept[(x[kept] + noise[kept]).argmax()])

    def _process(
        self, logits: torch.Tensor, history: list[int], prompt_length: int
    ) -> torch.Tensor:
        """Penalties and bias on one float32 row (a copy). Repetition (Keskar et al. 2019) counts
        the
        prompt too, presence and frequency (OpenAI) the completion only."""
        params = self._params
        logits = logits.clone()
        if params.repetition_penalty != 1.0:
            seen = torch.tensor(sorted(set(history)), dtype=torch.int64, device=logits.device)
            values = logits[seen]
            penalty = params.repetition_penalty
            logits[seen] = torch.where(values > 0, values / penalty, values * penalty)
        if params.presence_penalty or params.frequency_penalty:
            ids, counts = np.unique(np.array(history[prompt_length:], np.int64), return_counts=True)
            amount = params.presence_penalty + params.frequency_penalty * counts
            at = torch.from_numpy(ids).to(logits.device)
            logits[at] -= torch.from_numpy(amount.astype(np.float32)).to(logits.device)
        for token, bias in self._bias.items():
            logits[token] += bias
        return logits

    def _restrict(self, x: torch.Tensor) -> torch.Tensor | None:
        """Indices [n] int64 that min-p, top-k, top-p leave, lowest first; None: all. x [vocab]."""
        params = self._params
        keep: torch.Tensor | None = None
        if params.top_k:
            keep = _top_k(x, min(params.top_k, x.shape[0]))
        if params.top_p is not None and params.top_p < 1.0:
            keep = _top_p(x, params.top_p, keep)
        if params.min_p:
            # p >= min_p * p_max is a distance in logits: no normalisation needed.
            close = x >= x.max() + float(np.log(params.min_p))
            keep = close.nonzero().squeeze(1) if keep is None else keep[close[keep]]
        return keep


def _top_k(x: torch.Tensor, k: int) -> torch.Tensor:
    """Indices of the k largest; ties at the edge go to the lower index. x [vocab] -> [k]."""
    edge = x.topk(k).values[-1]
    above = (x > edge).nonzero().squeeze(1)
    level = (x == edge).nonzero().squeeze(1)[: k - above.shape[0]]
    return torch.cat((above, level)).sort().values


def _top_p(x: torch.Tensor, top_p: float, within: torch.Tensor | None) -> torch.Tensor:
    """Smallest set of most probable tokens with mass >= top_p, among `within` renormalised.

    Ordered by value, then index, so that the set does not depend on how many were sorted.
    """
    pool = x if within is None else x[within]
    weights = torch.exp((pool - pool.max()).double())
    need = top_p * float(weights.sum())
    count = pool.shape[0]
    size = min(TOP_P_CANDIDATES, count)
    while True:
        top = _top_k(pool, size)
        order = pool[top].sort(descending=True, stable=True).indices
        mass = weights[top[order]].cumsum(0)
        enough = int((mass < need).sum()) + 1
        if enough <= size or size == count:
            chosen = top[order[:enough]].sort().values
            return chosen if within is None else within[chosen]
        size = count
