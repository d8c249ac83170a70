# pyright: reportUnknownMemberType=false
# torch declares some of its types in part only.
"""The engine on a GPU: exact in any company, and the same texts as on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from engine.errors import EngineConfigError
from engine.loading.runners import measured_memory
from engine.model.graph_runner import GraphRunner
from engine.model.kv_cache import KVCache
from engine.sentinel import SCRATCH_BLOCKS
from tests import models
from tests.exactness.mixture import assert_same, drafting, mixed_requests
from tests.generation import Transcript, engine_on, generate

if TYPE_CHECKING:
    from pathlib import Path

    from engine.engine import Engine

pytestmark = pytest.mark.gpu


def on_gpu(model: Path, **settings: Any) -> Engine:
    return engine_on(model, device="cuda", **settings)


def runner_of(engine: Engine) -> GraphRunner:
    runner = engine._runner  # pyright: ignore[reportPrivateUsage]
    assert isinstance(runner, GraphRunner)
    return runner


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_mixed_requests_say_together_what_they_say_alone(
    tiny: Path, near: Path, dtype: str
) -> None:
    alone: dict[str, Transcript] = {}
    plain = on_gpu(tiny, dtype=dtype, prefix_cache=False, drafter="none")
    for start in drafting(mixed_requests(), ["none"], [0]):
        alone |= generate(plain, start)
    crowded = on_gpu(tiny, dtype=dtype, draft_model=str(near), max_step_tokens=48, kv_blocks=80)
    for _ in range(3):
        starts = drafting(mixed_requests(), ["ngram", "model", "none"], [4, 8, 2, 1])
        streams = generate(crowded, *starts)
        assert_same(streams, alone)
        crowded.idle()
    assert crowded.load().sentinel_checks > 0
    assert crowded.sentinel_mismatches == 0


def test_texts_do_not_depend_on_a_heads_drafts(tiny: Path) -> None:
    head = models.write_head(tiny.with_name("head on a GPU"))
    plain = on_gpu(tiny, drafter="none")
    alone = generate(plain, *drafting(mixed_requests(), ["none"], [0]))
    drafted = on_gpu(tiny, draft_head=str(head), drafter="combined")
    streams = generate(drafted, *drafting(mixed_requests(), ["head", "combined"], [4, 2]))
    assert_same(streams, alone)
    assert sum(each.counts.drafted for each in streams.values()) > 0


def test_texts_are_those_of_the_cpu_up_to_near_ties(tiny: Path) -> None:
    starts = drafting(mixed_requests(), ["ngram"], [4])
    ours = generate(on_gpu(tiny, dtype="float32"), *starts)
    theirs = generate(engine_on(tiny, kernels="torch", dtype="float32", device="cpu"), *starts)
    same = sum(ours[name].text == theirs[name].text for name in theirs)
    assert same >= len(theirs) - 2


def test_usual_steps_are_recorded(tiny: Path) -> None:
    runner = runner_of(on_gpu(tiny))
    assert runner.recorded > 10


def test_a_restarted_engine_says_the_same(tiny: Path) -> None:
    starts = drafting(mixed_requests(), ["ngram"], [4])
    assert_same(generate(on_gpu(tiny), *starts), generate(on_gpu(tiny), *starts))


def test_a_cache_that_does_not_fit_is_refused_at_start(tiny: Path) -> None:
    total = torch.cuda.mem_get_info(0)[1] >> 20
    with pytest.raises(EngineConfigError, match="or less would fit") as caught:
        on_gpu(tiny, kv_blocks=None, kv_memory_mib=total)
    assert caught.value.param == "kv_memory_mib"


def test_the_plan_holds_against_what_is_really_taken(tiny: Path) -> None:
    """What recording and serving take beyond the cache is within what was set aside for them."""
    engine = on_gpu(tiny)
    runner = runner_of(engine)
    planned = measured_memory(engine._config, [runner.model], 512)  # pyright: ignore[reportPrivateUsage]
    del engine, runner
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    again = on_gpu(tiny)
    generate(again, *drafting(mixed_requests(), ["ngram"], [4]))
    shape = runner_of(again).model.shape
    token = KVCache.bytes_per_token(shape.layers, shape.kv_heads, shape.head_dim, torch.bfloat16)
    cache = (again.info().kv_blocks + SCRATCH_BLOCKS + 1) * 16 * token
    taken = torch.cuda.memory_reserved() - before - cache
    margin = int(0.03 * planned.total)
    assert taken <= planned.step + planned.graphs + margin
