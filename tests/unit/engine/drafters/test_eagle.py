"""A head proposes the same for the same text, whatever happened on the way there.

Nothing else would show a stale key: the text is right whatever is drafted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from engine.errors import EngineConfigError
from engine.loading.head import SHIPPED
from tests import models
from tests.generation import engine_on, generate, request, scheduler_of
from tests.unit.engine.drafters.listener import (
    PROMPT,
    Listener,
    assert_same_drafts,
    start_of,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def head(tiny: Path) -> Path:
    return models.write_head(tiny.with_name("drafting head"))


@pytest.fixture(scope="module")
def undisturbed(tiny: Path, head: Path) -> Listener:
    """Alone, without a cache."""
    engine = engine_on(tiny, draft_head=str(head), prefix_cache=False)
    engine.add(start_of("s", drafter="head"))
    listener = Listener(engine)
    listener.run()
    assert sum(map(len, listener.drafts.values())) > 200
    return listener


def test_drafts_are_those_of_a_fresh_start_from_the_same_text(
    undisturbed: Listener, tiny: Path, head: Path
) -> None:
    """So the rejected drafts before have left nothing behind. A fresh start reads everything in its
    first step, and drafts in its second.
    """
    engine = engine_on(tiny, draft_head=str(head), prefix_cache=False)
    fresh: dict[int, list[int]] = {}
    for length in undisturbed.drafts:
        engine.add(
            start_of(
                "s",
                drafter="head",
                committed=undisturbed.tokens[:length],
                chars=undisturbed.lengths[length],
            )
        )
        listener = Listener(engine)
        listener.tokens = undisturbed.tokens[:length]
        while engine.has_work and not listener.drafts:
            engine.step(listener.take)
        fresh |= listener.drafts
        engine.cancel("s")
        engine.step(lambda step: None)
    assert_same_drafts(fresh, undisturbed.drafts)


SETTINGS: dict[str, dict[str, Any]] = {
    "few blocks": {"kv_blocks": 6},
    "few blocks, no cache": {"kv_blocks": 6, "prefix_cache": False},
    "chunks of 7": {"max_step_tokens": 7},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_drafts_are_the_same_in_company(
    undisturbed: Listener, tiny: Path, head: Path, name: str
) -> None:
    engine = engine_on(tiny, draft_head=str(head), **SETTINGS[name])
    usual: dict[str, Any] = {"max_tokens": 60, "ignore_eos": True}
    engine.add(request("first", "The reader", priority=1, drafter="head", draft_length=2, **usual))
    engine.add(start_of("s", drafter="head"))
    engine.add(request("last", PROMPT + " wet", drafter="none", **usual))
    sequences = {s.stream: s for s in scheduler_of(engine).sequences()}
    listener = Listener(engine)
    listener.run()
    assert listener.tokens == undisturbed.tokens
    assert_same_drafts(listener.drafts, undisturbed.drafts)
    assert (sequences["s"].preemptions > 0) == ("few blocks" in name)


def test_drafts_are_the_same_behind_blocks_that_a_stream_without_drafts_filled(
    tiny: Path, head: Path
) -> None:
    heard: list[Listener] = []
    for prefix_cache in (False, True):
        engine = engine_on(tiny, draft_head=str(head), prefix_cache=prefix_cache)
        before, start = (
            msgspec.structs.replace(start_of(stream, drafter=drafter), prompt=f"{PROMPT} {PROMPT}")
            for stream, drafter in (("before", "none"), ("s", "head"))
        )
        generate(engine, before)
        engine.add(start)
        (sequence,) = scheduler_of(engine).sequences()
        heard.append(Listener(engine))
        heard[-1].run()
        assert (sequence.cached_prompt > 0) == prefix_cache
    # With all but the last token cached, the first step drafts too.
    assert {length: heard[1].drafts[length] for length in heard[0].drafts} == heard[0].drafts
    assert len(heard[0].drafts) > 30


def test_head_is_the_default_through_the_combined_drafter(tiny: Path, head: Path) -> None:
    info = engine_on(tiny, draft_head=str(head)).info()
    assert info.drafters == ["combined", "head", "ngram", "suffix"]
    assert info.default_drafter == "combined"
    assert engine_on(tiny).info().default_drafter == "ngram"


@pytest.mark.parametrize("drafter", ["head", "combined"])
def test_drafter_without_a_head_is_refused_at_load(tiny: Path, drafter: str) -> None:
    with pytest.raises(EngineConfigError, match="needs a draft_head") as caught:
        engine_on(tiny, drafter=drafter)
    assert caught.value.param == "draft_head"


def test_head_without_native_kernels_is_refused_at_load(tiny: Path, head: Path) -> None:
    with pytest.raises(EngineConfigError, match="native kernels") as caught:
        engine_on(tiny, kernels="torch", draft_head=str(head))
    assert caught.value.param == "draft_head"


def test_drafter_whose_head_cannot_run_here_is_refused_at_load(
    tiny: Path, head: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A head is there, as the embedded model's is: what is missing is what runs it."""
    monkeypatch.setitem(SHIPPED, "tiny", head)
    with pytest.raises(EngineConfigError, match="native kernels or a GPU") as caught:
        engine_on(tiny, kernels="torch", drafter="head")
    assert caught.value.param == "drafter"
    assert engine_on(tiny, kernels="torch").info().default_drafter == "ngram"


def test_drafting_stops_where_it_never_pays(tiny: Path, head: Path) -> None:
    """A random head is soon seen through, but still asked now and then."""
    engine = engine_on(tiny, draft_head=str(head), adaptive_draft=True)
    usual: dict[str, Any] = {"max_tokens": 400, "ignore_eos": True, "drafter": "head"}
    generate(engine, request("warm", PROMPT, seed=1, **usual))
    counts = generate(engine, request("s", PROMPT, seed=2, **usual))["s"].counts
    assert counts.drafted < counts.steps
