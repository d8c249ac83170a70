"""Counter-based Gumbel noise: a pure function of (seed, position, token).

The agreement rule needs the drafter and the verifier, today's engine and the one restarted
tomorrow, to see the same noise for the same place in the text. Philox (Salmon et al. 2011) keyed by
(seed, position) gives it: token t takes the t-th 32-bit word of the keyed stream, whose values
numpy guarantees across versions.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Indices: TypeAlias = NDArray[np.int64]


class NoiseSource:
    """Noise of one sequence. Keeps the last few positions: a step drafts and verifies the same."""

    def __init__(self, seed: int, vocab: int, *, keep: int = 32) -> None:
        self._seed = seed
        self._vocab = vocab
        self._keep = keep
        self._words: dict[int, NDArray[np.uint32]] = {}

    def at(self, position: int, tokens: Indices | None = None) -> NDArray[np.float64]:
        """Standard Gumbel noise of completion token number `position` (from 0), for all tokens of
        the vocabulary or for those named. [vocab] or [len(tokens)]."""
        words = self._words.get(position)
        if words is None:
            words = philox_words(self._seed, position, self._vocab)
            self._words[position] = words
            if len(self._words) > self._keep:
                del self._words[next(iter(self._words))]
        return gumbel(words if tokens is None else words[tokens])


def philox_words(seed: int, position: int, count: int) -> NDArray[np.uint32]:
    """The first `count` 32-bit words of the stream keyed by (seed, position)."""
    key = np.array([seed, position], dtype=np.uint64)
    return np.random.Philox(key=key).random_raw((count + 1) // 2).view(np.uint32)[:count]


def gumbel(words: NDArray[np.uint32]) -> NDArray[np.float64]:
    """Gumbel values of uniform words. In double precision, where (word + ½) / 2³² is exact: in
    single
    precision it could round to 1, a Gumbel value of infinity that would win every arg-max."""
    return -np.log(-np.log((words + 0.5) * 2.0**-32))
