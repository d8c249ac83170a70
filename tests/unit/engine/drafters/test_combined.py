"""Copies where the text repeats, the head elsewhere: through an engine, with what was drafted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests import models
from tests.generation import engine_on, generate, request
from tests.unit.engine.drafters.listener import PROMPT

if TYPE_CHECKING:
    from pathlib import Path

    from engine.engine import Engine

USUAL: dict[str, Any] = {"max_tokens": 60, "ignore_eos": True, "temperature": 0.7, "seed": 3}


@pytest.fixture(scope="module")
def engine(tiny: Path) -> Engine:
    return engine_on(tiny, draft_head=str(models.write_head(tiny.with_name("combined head"))))


def test_prediction_comes_first(engine: Engine) -> None:
    """The head is sure of itself and hardly ever right here: all that is accepted was copied."""
    text = generate(engine, request("s", PROMPT, drafter="none", **USUAL))["s"].text
    copied, followed = (
        generate(engine, request("s", PROMPT, drafter=drafter, prediction=text, **USUAL))["s"]
        for drafter in ("ngram", "combined")
    )
    assert followed.text == text
    assert followed.counts.accepted >= copied.counts.accepted > 10


def test_head_drafts_where_nothing_can_be_copied(engine: Engine) -> None:
    usual: dict[str, Any] = USUAL | {"max_tokens": 6}
    start = request("s", "A", drafter="combined", **usual)
    copied = request("s", "A", drafter="ngram", **usual)
    guessed, looked_up = (generate(engine, one)["s"].counts.drafted for one in (start, copied))
    assert guessed > looked_up


def test_copies_are_judged_whoever_drafted(tiny: Path, tmp_path: Path) -> None:
    """A prediction that is always right is believed ever more, also where the head was asked."""
    engine = engine_on(tiny, draft_head=str(models.write_head(tmp_path / "head")))
    alone = generate(engine, request("s", PROMPT, drafter="none", **USUAL))["s"]
    usual: dict[str, Any] = {"drafter": "combined", "prediction": alone.text} | USUAL
    rejected = [
        counts.drafted - counts.accepted
        for counts in (
            generate(engine, request("s", PROMPT, **usual))["s"].counts for _ in range(4)
        )
    ]
    assert rejected[-1] <= rejected[0]
