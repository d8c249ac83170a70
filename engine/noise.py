"""Counter-based Gumbel noise: a pure function of (seed, position, token).

The agreement rule needs the drafter and the verifier, today's engine and the one restarted
tomorrow, to see the same noise for the same place in the text. Philox (Salmon et al. 2011) keyed by
(seed, position) gives it: token t takes the t-th 32-bit word of the keyed stream, whose values
numpy guarantees across versions.
"""

from __future__ import annotations

import numpy as np
import torch


class NoiseSource:
    """Noise of one sequence. Keeps the last few positions: a step drafts and verifies the same
    ones.
    """

    def __init__(self, seed: int, vocab: int, *, keep: int = 32) -> None:
        self._seed = seed
        self._vocab = vocab
        self._keep = keep
        self._made: dict[int, torch.Tensor] = {}

    def at(self, position: int) -> torch.Tensor:
        """Standard Gumbel noise [vocab] float32 for completion token number `position` (from 0)."""
        noise = self._made.get(position)
        if noise is None:
            noise = gumbel(self._seed, position, self._vocab)
            self._made[position] = noise
            if len(self._made) > self._keep:
                del self._made[next(iter(self._made))]
        return noise


def gumbel(seed: int, position: int, vocab: int) -> torch.Tensor:
    """[vocab] float32. An exponential E = -log1p(-u) keeps its precision where it matters: near 0,
    where the Gumbel value -log(E) is large and decides the arg-max."""
    words = np.random.Philox(key=np.array([seed, position], dtype=np.uint64)).random_raw(
        (vocab + 1) // 2
    )
    bits = torch.from_numpy(words.view(np.uint32)[:vocab].astype(np.float32))
    uniform = bits.add_(0.5).mul_(2.0**-32)
    return uniform.neg_().log1p_().neg_().log_().neg_()
