# pyright: reportUnknownMemberType=false
# torch declares some of its types in part only.
"""The GPU's way through a step, on the CPU: the text for a seed is the same in any company.

Same runner, same fixed buffers, same tensor code; the reference kernels stand for Triton's, and a
replay is a call. On a GPU tests/gpu/test_engine.py asks the same of the real ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from engine.kernels.device import Reference
from engine.loading import parts
from engine.model.attention import small_products
from engine.model.graph_head import GraphHeadRunner
from engine.model.graph_runner import GraphRunner
from engine.model.invariance import Findings
from engine.model.kv_cache import KVCache
from tests import models
from tests.exactness.mixture import assert_same, drafting, mixed_requests
from tests.generation import Transcript, engine_on, generate
from tests.unit.engine.drafters.listener import Listener, start_of

if TYPE_CHECKING:
    from pathlib import Path

    from engine.config import EngineConfig
    from engine.engine import Engine
    from engine.model.llama import LlamaModel
    from engine.model.torch_head import TorchHead

CPU = torch.device("cpu")
REQUESTS = mixed_requests()[1::2]
"""Half of them: the reference kernels copy every context they look at."""


def graphed(
    model: LlamaModel,
    num_blocks: int,
    config: EngineConfig,
    context: int,
    head: TorchHead | None = None,
) -> GraphRunner:
    shape = model.shape
    cache = KVCache(
        layers=shape.layers,
        num_blocks=num_blocks + 1,
        block_size=config.block_size,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        dtype=model.dtype,
        device=model.device,
    )
    product = small_products(shape.head_dim, CPU, Findings(CPU))
    return GraphRunner(
        model,
        cache,
        Reference(shape, product, tile_rows=8),
        most_rows=max(config.max_step_tokens, 128),
        most_sequences=config.max_sequences,
        context=context,
        head=head,
    )


def drafting_beside(
    runner: GraphRunner, head: TorchHead, config: EngineConfig, context: int
) -> GraphHeadRunner:
    kernels = Reference(head.shape, torch.bmm, tile_rows=1)
    return GraphHeadRunner(runner, kernels, most_sequences=config.max_sequences, context=context)


@pytest.fixture(scope="module")
def head(tiny: Path) -> Path:
    return models.write_head(tiny.with_name("head beside graphs"))


@pytest.fixture(scope="module")
def make(tiny: Path) -> Any:
    def engine(**settings: Any) -> Engine:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(parts, "runner_of", graphed)
            patch.setattr(parts, "runs_heads", bool)
            patch.setattr(parts, "head_runner_of", drafting_beside)
            usual: dict[str, Any] = {"kernels": "torch", "dtype": "float32", "device": "cpu"}
            return engine_on(tiny, **(usual | settings))

    return engine


@pytest.mark.heavy
def test_mixed_requests_say_together_what_they_say_alone(make: Any, near: Path, head: Path) -> None:
    plain = make(prefix_cache=False, drafter="none")
    alone: dict[str, Transcript] = {}
    for start in drafting(REQUESTS, ["none"], [0]):
        alone |= generate(plain, start)
    crowded = make(draft_model=str(near), draft_head=str(head), max_step_tokens=48, kv_blocks=60)
    starts = drafting(REQUESTS, ["head", "model", "combined", "none"], [4, 8, 2, 1])
    streams = generate(crowded, *starts)
    assert_same(streams, alone)
    assert sum(each.counts.accepted for each in streams.values()) > 0
    crowded.idle()
    assert crowded.load().sentinel_checks > 0
    assert crowded.sentinel_mismatches == 0


def test_texts_are_those_of_the_cpus_engine(make: Any, tiny: Path) -> None:
    """Two ways to compute the same model: the same noise, so the same text but for near-ties."""
    starts = drafting(REQUESTS, ["none"], [0])
    ours = generate(make(), *starts)
    theirs = generate(engine_on(tiny, kernels="torch", dtype="float32"), *starts)
    same = sum(ours[name].text == theirs[name].text for name in theirs)
    assert same >= len(theirs) - 1


def test_head_drafts_what_it_drafts_on_the_cpus_kernels(make: Any, tiny: Path, head: Path) -> None:
    """In a whole engine, so through prefill, rejected drafts and its own cache of features."""
    heard: list[Listener] = []
    for engine in (
        make(draft_head=str(head)),
        engine_on(tiny, dtype="float32", draft_head=str(head)),
    ):
        assert engine.info().default_drafter == "combined"
        engine.add(start_of("s", drafter="head"))
        heard.append(Listener(engine))
        heard[-1].run()
    ours, theirs = heard
    assert ours.tokens == theirs.tokens
    assert ours.drafts == theirs.drafts
    assert sum(map(len, ours.drafts.values())) > 100


def test_texts_do_not_depend_on_the_heads_drafts(make: Any, head: Path) -> None:
    few = REQUESTS[:3]
    alone = generate(make(drafter="none"), *drafting(few, ["none"], [0]))
    drafted = make(draft_head=str(head), adaptive_draft=True, drafter="combined")
    streams = generate(drafted, *drafting(few, ["head"], [4, 2]))
    assert_same(streams, alone)
    assert sum(each.counts.drafted for each in streams.values()) > 0
