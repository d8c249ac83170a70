from __future__ import annotations

import numpy as np

from engine.training.documents import Document, gather
from engine.training.vocabulary import coverage, most_frequent, tables


def test_vocabulary_is_what_answers_say_most() -> None:
    # 9 is said by prompts alone; of 4 and 6, said once each, the lower comes in.
    texts = [Document([9, 9, 9, 3, 3, 7], 3), Document([9, 3, 7, 6, 4], 1)]
    tokens = most_frequent(gather(texts), 3, vocab=12)
    assert tokens.tolist() == [3, 4, 7]
    assert coverage(gather(texts), tokens) == 6 / 11


def test_tables_name_the_same_tokens_both_ways() -> None:
    tokens = np.array([1, 4, 5])
    made = tables(tokens, vocab=8)
    assert (made["d2t"].numpy() + np.arange(3)).tolist() == tokens.tolist()
    assert np.flatnonzero(made["t2d"].numpy()).tolist() == tokens.tolist()
