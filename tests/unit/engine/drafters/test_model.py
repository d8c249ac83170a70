"""A draft model proposes the same for the same text, whatever happened on the way there.

Nothing else would show a mistake in what it takes for read: the text is right whatever is drafted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from engine.frames import Drafted, Step
from tests import models
from tests.generation import Generation, engine_on, generate, request, scheduler_of
from tests.unit.engine.drafters.listener import (
    PROMPT,
    Listener,
    assert_same_drafts,
    start_of,
)

if TYPE_CHECKING:
    from pathlib import Path

SPECIAL = {0, 1}


@pytest.fixture(scope="module")
def undisturbed(tiny: Path, near: Path) -> Listener:
    """Alone, without a cache: some drafts are right, some in part, some not at all."""
    engine = engine_on(tiny, draft_model=str(near), prefix_cache=False)
    engine.add(start_of("s"))
    listener = Listener(engine)
    listener.run()
    return listener


def test_drafts_are_those_of_a_fresh_start_from_the_same_text(
    undisturbed: Listener, tiny: Path, near: Path
) -> None:
    engine = engine_on(tiny, draft_model=str(near), prefix_cache=False)
    fresh: dict[int, list[int]] = {}
    for length in undisturbed.drafts:
        if length >= len(undisturbed.tokens):
            continue
        engine.add(
            start_of(
                "s",
                committed=undisturbed.tokens[:length],
                chars=undisturbed.lengths[length],
            )
        )
        listener = Listener(engine)
        listener.tokens = undisturbed.tokens[:length]
        engine.step(listener.take)
        fresh[length] = listener.drafts[length]
        engine.cancel("s")
        engine.step(lambda step: None)
    assert_same_drafts(fresh, undisturbed.drafts)
    assert all(fresh.values())


SETTINGS: dict[str, dict[str, Any]] = {
    "few blocks": {"kv_blocks": 6},
    "few blocks, no cache": {"kv_blocks": 6, "prefix_cache": False},
    "chunks of 7": {"max_step_tokens": 7},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_drafts_are_the_same_in_company(
    undisturbed: Listener, tiny: Path, near: Path, name: str
) -> None:
    engine = engine_on(tiny, draft_model=str(near), **SETTINGS[name])
    engine.add(request("first", "The reader", max_tokens=60, ignore_eos=True, priority=1))
    engine.add(start_of("s"))
    engine.add(request("last", PROMPT + " wet", max_tokens=60, ignore_eos=True))
    sequences = {s.stream: s for s in scheduler_of(engine).sequences()}
    listener = Listener(engine)
    listener.run()
    assert listener.tokens == undisturbed.tokens
    assert_same_drafts(listener.drafts, undisturbed.drafts)
    assert (sequences["s"].preemptions > 0) == ("few blocks" in name)


def test_draft_ends_before_a_special_token(tiny: Path, near: Path) -> None:
    engine = engine_on(tiny, draft_model=str(near))
    usual: dict[str, Any] = {"max_tokens": 24, "drafter": "model", "ignore_eos": True, "seed": 4}
    engine.add(request("s", PROMPT, logit_bias={0: 6.0, 1: 6.0}, temperature=1.0, **usual))
    listener = Listener(engine)
    listener.run()
    assert SPECIAL & set(listener.tokens), "the target says some"
    assert not SPECIAL & {token for draft in listener.drafts.values() for token in draft}


def test_acceptance_is_measured(tiny: Path, near: Path, tmp_path: Path) -> None:
    """Confidence rises with a draft model that is always right, and falls with a stranger."""
    last: list[float] = []
    for model in (tiny, near, models.write(tmp_path / "stranger", seed=99)):
        engine = engine_on(tiny, draft_model=str(model))
        starts = [request(str(n), PROMPT, max_tokens=60, seed=n, ignore_eos=True) for n in range(3)]
        generate(engine, *starts)
        generation = Generation(engine)
        confidences: list[float | None] = []
        engine.add(request("s", PROMPT, max_tokens=5, ignore_eos=True))

        def emit(step: Step, seen: list[float | None] = confidences) -> None:
            for _, event in step.events:
                if isinstance(event, Drafted):
                    seen += [token.confidence for token in event.tokens]

        while generation.engine.has_work:
            engine.step(emit)
        assert confidences[0] is not None
        last.append(confidences[0])
    assert last[0] > 0.9 > last[1] > 0.3 > last[2]
