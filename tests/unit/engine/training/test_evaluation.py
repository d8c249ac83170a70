from __future__ import annotations

import numpy as np
import pytest

from engine.training.evaluation import Marks, Tally, walk


def marks(*steps: str) -> np.ndarray:
    return np.array([[letter == "x" for letter in step] for step in steps])


def test_walk_begins_again_where_a_draft_ended() -> None:
    # Draft 0: two right, so tokens 0 1 and the target's own 2; draft 3: wrong at once; draft 4 is
    # right, and there is no room for more.
    right = marks("xx..x", "x.x..")
    assert walk(right) == (5, 3)


def test_walk_takes_all_that_is_right_up_to_the_drafts_length() -> None:
    assert walk(marks("x" * 7, "x" * 7)) == (7, 3)
    assert walk(marks("." * 7, "." * 7)) == (7, 7)


def test_tally_adds_documents_up() -> None:
    tally = Tally(2)
    tally.add(Marks(marks("xx.", "x.x")))
    tally.add(Marks(marks("x", ".")))
    found = tally.figures()
    # Three of four first places; of the second, one of the two that lie in the text.
    assert found.acceptance == pytest.approx([0.75, 0.5])
    assert found.rows == 4
    # Walks: 3 tokens in 1 step, and 1 in 1.
    assert found.tokens_per_step == pytest.approx(2.0)
