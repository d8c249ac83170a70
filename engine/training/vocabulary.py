"""Stage "vocabulary": the tokens a head can say, and the tables that name them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from engine.training.documents import Documents


def most_frequent(documents: Documents, count: int, vocab: int) -> NDArray[np.int64]:
    """The tokens that answers say most, ascending. Of equally frequent ones the lower comes in."""
    first = np.cumsum(documents.lengths) - documents.lengths
    place = np.arange(len(documents.tokens)) - np.repeat(first, documents.lengths)
    said = documents.tokens[place >= np.repeat(documents.starts, documents.lengths)]
    uses = np.bincount(said, minlength=vocab)
    return np.sort(np.argsort(-uses, kind="stable")[:count])


def tables(tokens: NDArray[np.int64], vocab: int) -> dict[str, torch.Tensor]:
    """`d2t` (own id + offset = the target's) and `t2d` (whether the head knows a target's token)
    as published heads carry them.
    """
    known = np.zeros(vocab, bool)
    known[tokens] = True
    return {
        "d2t": torch.from_numpy(tokens - np.arange(len(tokens))),
        "t2d": torch.from_numpy(known),
    }


def coverage(documents: Documents, tokens: NDArray[np.int64]) -> float:
    """Share of all tokens that are among `tokens`."""
    return float(np.isin(documents.tokens, tokens).mean())
