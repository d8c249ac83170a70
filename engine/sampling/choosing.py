"""The rules of sampler.py as tensor code: all rows of a step at once, without waiting for a device.

Every sum here is one of whole numbers, so it is the same in any order, and with it what is chosen:
a row's token does not depend on the rows beside it, nor on how a device adds. Against sampler.py,
which adds in double precision, the edge of top-p may move by a token whose share is below 1e-8.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.kernels.device import DeviceKernels

_Enough: TypeAlias = "Callable[[torch.Tensor], torch.Tensor]"

SHARE_BITS = 44
"""exp of a distance from the largest logit, in units of 2^-44: 2^18 of them fit into 63 bits."""
NO_TOP_P = 2.0


class Asked(NamedTuple):
    """How each row is to be chosen. All [rows].

    seed, position: of the noise, int64. temperature float32, 1 for a greedy row. greedy bool.
    top_k int64, the vocabulary's size for none. top_p float64, NO_TOP_P for none. least float32:
    log of min-p, minus infinity for none.
    """

    seed: torch.Tensor
    position: torch.Tensor
    temperature: torch.Tensor
    greedy: torch.Tensor
    top_k: torch.Tensor
    top_p: torch.Tensor
    least: torch.Tensor


class Kind(NamedTuple):
    """What any of a step's rows asks for: what none does is not computed."""

    noisy: bool
    restricted: bool


class Penalties(NamedTuple):
    """history [rows, n] int64: what came before a row, padded with the vocabulary's size.
    completion [rows, n] bool: which of it is completion. repetition float32, presence and frequency
    float64 [rows].
    """

    history: torch.Tensor
    completion: torch.Tensor
    repetition: torch.Tensor
    presence: torch.Tensor
    frequency: torch.Tensor


def choose(x: torch.Tensor, asked: Asked, kind: Kind, kernels: DeviceKernels) -> torch.Tensor:
    """Each row's token. x [rows, vocab] float32, after penalties, bias and masks. [rows] int64."""
    largest = x.argmax(1)
    if not kind.noisy:
        return largest
    x = x / asked.temperature.unsqueeze(1)
    if kind.restricted:
        kept = _first_of(x, asked.top_k)
        kept = kept & _most_probable(x.masked_fill(~kept, -math.inf), asked.top_p)
        x = x.masked_fill(~kept, -math.inf)
        # p >= min_p * p_max is a distance in logits: no normalisation needed.
        x = x.masked_fill(x < (x.amax(1) + asked.least).unsqueeze(1), -math.inf)
    return torch.where(asked.greedy, largest, kernels.noisy_choice(x, asked.seed, asked.position))


def agreed(tokens: torch.Tensor, follows: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
    """Which rows count: those whose sequence's rows before them all said what was drafted.

    tokens [rows]: what each row says. follows [rows]: what was drafted there; -1 behind a draft.
    first [rows]: the row with which its sequence begins. [rows] bool.
    """
    wrong = (tokens != follows).long()
    before = wrong.cumsum(0) - wrong
    return before == before.index_select(0, first)


def logprobs(x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Log of the model's own probability of each row's token. x [rows, vocab]. [rows] float64."""
    x = x.float()
    own = x.gather(1, tokens.unsqueeze(1)).squeeze(1).double()
    total = _shares(x).sum(1).double() * 2.0**-SHARE_BITS
    return own - x.amax(1).double() - total.log()


def penalised(x: torch.Tensor, penalties: Penalties) -> torch.Tensor:
    """A copy of x [rows, vocab] float32. Repetition (Keskar et al. 2019) counts the prompt too,
    presence and frequency (OpenAI) the completion only.
    """
    seen = _counts(x, penalties.history, torch.ones_like(penalties.history))
    factor = penalties.repetition.unsqueeze(1)
    x = torch.where(seen > 0, torch.where(x > 0, x / factor, x * factor), x)
    said = _counts(x, penalties.history, penalties.completion.long())
    taken = penalties.presence.unsqueeze(1) + penalties.frequency.unsqueeze(1) * said.double()
    return torch.where(said > 0, x - taken.float(), x)


def biased(x: torch.Tensor, tokens: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """A copy of x [rows, vocab] with values [rows, n] added at tokens [rows, n]; what only fills up
    adds to token number vocab, which there is not.
    """
    added = x.new_zeros(x.shape[0], x.shape[1] + 1).scatter_add_(1, tokens, values)
    return x + added.narrow(1, 0, x.shape[1])


def masked(x: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """A copy in which only tokens whose bit is set can be chosen. masks [rows, words] int32."""
    tokens = torch.arange(x.shape[1], device=x.device)
    bits = masks.index_select(1, tokens // 32) >> (tokens % 32).int() & 1
    return x.masked_fill(bits == 0, -math.inf)


def _counts(x: torch.Tensor, tokens: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """How often each token occurs. [rows, vocab] int64."""
    counts = torch.zeros((x.shape[0], x.shape[1] + 1), dtype=torch.int64, device=x.device)
    return counts.scatter_add_(1, tokens, weights).narrow(1, 0, x.shape[1])


def _shares(x: torch.Tensor) -> torch.Tensor:
    """exp(x - max) as whole numbers. [rows, vocab] int64."""
    distance = x - x.amax(1, keepdim=True)
    return (distance.exp().double() * 2.0**SHARE_BITS).round().long()


def _first_of(x: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """The `count` [rows] largest of each row; ties at the edge go to the lower index. bool."""
    keys = _ordered(x)
    edge = _edge(keys, lambda above: above.sum(1) >= count).unsqueeze(1)
    left = count.unsqueeze(1) - (keys > edge).sum(1, keepdim=True)
    ties = keys == edge
    return (keys > edge) | (ties & (ties.cumsum(1) <= left))


def _most_probable(x: torch.Tensor, mass: torch.Tensor) -> torch.Tensor:
    """The fewest most probable of each row whose shares reach `mass` [rows] float64. bool."""
    keys, shares = _ordered(x), _shares(x)
    need = mass * shares.sum(1).double()
    edge = _edge(keys, lambda above: (shares * above).sum(1).double() >= need).unsqueeze(1)
    ties = keys == edge
    own = (shares * ties).amax(1, keepdim=True).double()
    short = need.unsqueeze(1) - (shares * (keys > edge)).sum(1, keepdim=True).double()
    wanted = (short / own.clamp(min=1)).ceil().clamp(min=1)
    kept = (keys > edge) | (ties & (ties.cumsum(1) <= wanted))
    return kept | (mass >= 1.0).unsqueeze(1)


def _ordered(x: torch.Tensor) -> torch.Tensor:
    """Whole numbers in the order of the values. float32 -> int32; minus zero is zero."""
    bits = (x + 0.0).view(torch.int32)
    return bits ^ (bits >> 31 & 0x7FFFFFFF)


def _edge(keys: torch.Tensor, enough: _Enough) -> torch.Tensor:
    """The largest key such that those from it on are `enough`, by halving. [rows] int64.

    The least of all where not even all are.
    """
    low = torch.full((keys.shape[0],), -(1 << 31), dtype=torch.int64, device=keys.device)
    high = torch.full_like(low, 1 << 31)
    for _ in range(32):
        middle = (low + high) >> 1
        reached = enough(keys >= middle.unsqueeze(1))
        low, high = torch.where(reached, middle, low), torch.where(reached, high, middle)
    return low
