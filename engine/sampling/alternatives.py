"""What else a model might have said: the most probable tokens of a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from engine.sampling.sampler import top_k

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.sampling.sampler import Judged, Row, Verdict

Alternatives: TypeAlias = list[tuple[int, float]]
"""Tokens with the log of the model's own probability, the most probable first."""


def with_alternatives(
    logits: Any, items: Sequence[Judged], verdicts: Sequence[Verdict]
) -> list[Verdict]:
    """Verdicts with the alternatives of each token that they commit, where a request wants them.

    logits [rows, at least vocab], torch or numpy, as they were judged: for each item a row per
    draft token and one more. Nothing is computed, nor copied from a device, for other requests.
    """
    told: list[Verdict] = []
    first = 0
    for item, verdict in zip(items, verdicts, strict=True):
        count = item.sampler.params.top_logprobs
        if count:
            rows = logits[first : first + len(verdict.tokens)]
            if isinstance(rows, torch.Tensor):
                rows = rows.float().cpu().numpy()
            own = verdict.logprobs or []
            verdict = verdict._replace(
                alternatives=[
                    _most_probable(row[: item.sampler.vocab], count, token, logprob)
                    for row, token, logprob in zip(rows, verdict.tokens, own, strict=True)
                ]
            )
        told.append(verdict)
        first += len(item.draft) + 1
    return told


def _most_probable(x: Row, count: int, token: int, logprob: float) -> Alternatives:
    """`token`, if it is among them, with `logprob`: kernels that add in another order differ from
    numpy in the last digits.
    """
    kept = top_k(x, min(count, len(x)))
    kept = kept[np.argsort(-x[kept], kind="stable")]
    shifted = (x - x.max()).astype(np.float64)
    chances = shifted[kept] - np.log(np.exp(shifted).sum())
    pairs = zip(kept.tolist(), chances.tolist(), strict=True)
    return [(id, logprob if id == token else chance) for id, chance in pairs]
