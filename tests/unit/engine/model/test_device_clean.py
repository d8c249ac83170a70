# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportPrivateImportUsage=false
# torch declares some of its types in part only.
"""A whole step on fake CUDA tensors, which hold no values: what would wait for a device, read a
value on the host or mix devices raises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from engine.kernels.device import Reference
from engine.kernels.library import CHANCE_LEVELS, CHANCE_PLACES
from engine.loading.head import load_head
from engine.loading.parts import model_shape
from engine.model.batch import Span
from engine.model.draft_head import DraftItem
from engine.model.graph_head import GraphHeadRunner
from engine.model.graph_runner import GraphRunner
from engine.model.kv_cache import KVCache
from engine.model.llama import LlamaModel
from engine.model.packed import Rotary
from engine.model.torch_head import TorchHead
from engine.sampling.params import SamplingParams
from engine.sampling.sampler import Judged, Sampler
from tests import models

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CUDA = torch.device("cuda:0")
BLOCK, BLOCKS = 16, 12


class Copies(TorchDispatchMode):
    """Counts copies by (from, to)."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if name == "copy_":
            pair = (args[1].device.type, args[0].device.type)
        elif name == "_to_copy":
            pair = (args[0].device.type, result.device.type)
        else:
            return result
        if pair[0] != pair[1]:
            self.found.append((*pair, result.numel()))
        return result


def _as(dtype: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: torch.ops.aten.to.dtype(x, dtype)


OPERATORS: dict[Any, Callable[..., Any]] = {
    torch.Tensor.copy_: torch.ops.aten.copy_.default,
    torch.Tensor.__invert__: torch.ops.aten.bitwise_not.default,
    torch.Tensor.contiguous: torch.ops.aten.contiguous.default,
    torch.Tensor.float: _as(torch.float32),
    torch.Tensor.double: _as(torch.float64),
    torch.Tensor.long: _as(torch.int64),
    torch.Tensor.int: _as(torch.int32),
}


class ByOperator(TorchFunctionMode):
    """Some methods as the operators they are: in a CPU build they ask for a real device first."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        called = OPERATORS.get(func) or func
        return called(*args, **(kwargs or {}))


class Faked(NamedTuple):
    mode: FakeTensorMode
    runner: GraphRunner
    head: GraphHeadRunner


@pytest.fixture
def faked(tmp_path: Path) -> Iterator[Faked]:
    config = models.config()
    shape = model_shape(config)
    published = load_head(models.write_head(tmp_path / "head"), shape)
    own = model_shape(published.config)._replace(vocab=96, context=shape.context)
    rotary = Rotary(np.zeros(own.head_dim // 2, np.float32), 1.0)
    real = models.random_model(config, seed=4).state_dict()
    frequencies = torch.zeros(shape.head_dim // 2)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, ByOperator():
        tensors = {
            name: torch.empty(tensor.shape, dtype=torch.bfloat16) for name, tensor in real.items()
        }
        model = LlamaModel(
            shape,
            tensors,
            inverse_frequencies=frequencies,
            rope_scale=1.0,
            exact=False,
            progress=lambda _phase, _fraction: None,
            device=CUDA,
        )
        cache = KVCache(
            layers=shape.layers,
            num_blocks=BLOCKS + 1,
            block_size=BLOCK,
            kv_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            dtype=model.dtype,
            device=CUDA,
        )
        kernels = Reference(shape, torch.bmm, tile_rows=4)
        head = TorchHead(model, published, own, rotary, ends=frozenset([3]))
        runner = GraphRunner(
            model,
            cache,
            kernels,
            most_rows=128,
            most_sequences=8,
            context=BLOCKS * BLOCK,
            head=head,
        )
        of_head = Reference(own, torch.bmm, tile_rows=1)
        drafting = GraphHeadRunner(runner, of_head, most_sequences=8, context=BLOCKS * BLOCK)
        yield Faked(mode, runner, drafting)


def judged(number: int, draft: list[int], **params: Any) -> Judged:
    sampler = Sampler(SamplingParams(**params), number, models.VOCAB)
    return Judged(sampler, [1] * 40, 20, draft)


WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "noisy": {"temperature": 0.8},
    "restricted": {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "min_p": 0.05},
    "with logprobs": {"temperature": 0.8, "logprobs": True},
}


@pytest.mark.parametrize("name", WAYS)
def test_a_step_sends_twice_and_waits_for_nothing(faked: Faked, name: str) -> None:
    spans = [Span([5, 6, 7], 39, [0, 1, 2], 0), Span([8], 20, [4, 5], 0)]
    asked = [judged(1, [6, 7], **WAYS[name]), judged(2, [], **WAYS[name])]
    with torch.inference_mode(), Copies() as copies:
        logits = faked.runner.run(spans)
        count = faked.runner.launch(asked)
    assert logits.device == CUDA
    assert count == len(logits) == 4
    assert [(come, to) for come, to, _ in copies.found] == [("cpu", "cuda")] * 2


def drafted(number: int, **params: Any) -> DraftItem:
    sampler = Sampler(SamplingParams(**params), number, models.VOCAB)
    chances = np.ones((CHANCE_PLACES, CHANCE_LEVELS), np.float32)
    return DraftItem(sampler, [1] * 40, 20, [0, 1, 2], 4, chances)


@pytest.mark.parametrize("name", ["greedy", "noisy", "restricted"])
def test_a_heads_drafts_are_sent_for_once_and_wait_for_nothing(faked: Faked, name: str) -> None:
    asked = [drafted(number, **WAYS[name]) for number in range(3)]
    with torch.inference_mode(), Copies() as copies:
        faked.head.launch(asked, floor=0.1, usual=1.0)
    assert [(come, to) for come, to, _ in copies.found] == [("cpu", "cuda")]


def test_a_heads_penalties_and_bias_travel_but_wait_for_nothing(faked: Faked) -> None:
    params: dict[str, Any] = {"repetition_penalty": 1.1, "logit_bias": {4: 1.0}}
    with torch.inference_mode(), Copies() as copies:
        # Two: what fake tensors know of single numbers they work out for real.
        asked = [drafted(number, temperature=0.0, **params) for number in (1, 2)]
        faked.head.launch(asked, floor=0.1, usual=1.0)
    assert {(come, to) for come, to, _ in copies.found} == {("cpu", "cuda")}


def test_a_prompts_chunk_beside_decoding_rows_waits_for_nothing(faked: Faked) -> None:
    with torch.inference_mode(), Copies() as copies:
        faked.runner.run([Span([1] * 90, 0, list(range(6)), 90), Span([8], 20, [7, 8], 0)])
    assert [(come, to) for come, to, _ in copies.found] == [("cpu", "cuda")]


def test_penalties_and_bias_travel_but_wait_for_nothing(faked: Faked) -> None:
    params: dict[str, Any] = {"repetition_penalty": 1.1, "logit_bias": {4: 1.0}}
    with torch.inference_mode(), Copies() as copies:
        faked.runner.run([Span([5, 6], 39, [0, 1, 2], 0)])
        faked.runner.launch([judged(1, [6], temperature=0.0, **params)])
    assert {(come, to) for come, to, _ in copies.found} == {("cpu", "cuda")}


def test_a_value_read_on_the_host_would_be_found(faked: Faked) -> None:
    """The mode itself: both kinds of fault raise."""
    x = torch.empty(3, device=CUDA)
    with pytest.raises(DataDependentOutputException):
        x.max().item()
    with pytest.raises(RuntimeError, match=r"[Dd]evice"):
        torch.add(x, torch.empty(3))
