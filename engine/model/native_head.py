"""An EAGLE-3 head beside a model's native steps; kernels/cpu/head.h says why its cache is right.

Once attached, every step of the target also writes the head's keys and values; `draft` then guesses
the next tokens of any number of sequences in one call. Nothing is kept per sequence.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from engine.kernels.library import (
    CHANCE_LEVELS,
    CHANCE_PLACES,
    DRAFTING,
    JUDGEMENT,
    DraftArguments,
    HeadModel,
    Layer,
)
from engine.loading.head import EMBEDDING
from engine.loading.weights import of_tensor
from engine.model.native import request_of, weights_of
from engine.model.packed import PackedModel
from engine.model.runner import PROFILE_CONTEXT, PROFILE_ROUNDS
from engine.sampling.params import SamplingParams
from engine.sampling.sampler import Sampler
from engine.scheduling.draft_length import StepCost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from engine.loading.head import DraftHead
    from engine.loading.weights import WeightType
    from engine.model.llama import ModelShape
    from engine.model.native import NativeModel, NativeRunner
    from engine.model.packed import Rotary

LAYER = "midlayer."
PROFILE_SEQUENCES = (1, 2, 4, 8, 16, 32)
PROFILE_LENGTH = 4
"""Tokens of a profiled draft."""


class NativeHead(PackedModel):
    """Packed weights of a head and what it needs to know of its target."""

    def __init__(
        self,
        target: NativeModel,
        head: DraftHead,
        shape: ModelShape,
        rotary: Rotary,
        *,
        matrices: WeightType,
        ends: frozenset[int],
    ) -> None:
        """`shape`: its own numbers, context as the target's. `ends`: tokens no draft goes on to.

        Raises NoKernelsError for a shape the kernels do not take.
        """
        weights = weights_of(
            {name: t for name, t in head.tensors.items() if name not in ("d2t", "t2d", EMBEDDING)},
            matrices,
        )
        super().__init__(target.pool, shape, weights)
        self.target_vocab = target.shape.vocab
        self.wide_cache = target.wide_cache
        embedding = target.embedding
        if EMBEDDING in head.tensors:
            embedding = self._pack(of_tensor(head.tensors[EMBEDDING], matrices), None).struct
        layer = (Layer * 1)(self._layer(LAYER, attention_norm="hidden_norm"))
        self._kept.append(layer)
        self._frame = {
            "layer": layer,
            "embedding": embedding,
            "head": self._packed("lm_head").struct,
            "norm": self._vector("norm.weight"),
        }
        self._frame |= self._rotation(rotary, shape.context)
        vocab = target.shape.vocab
        layers = np.array(head.feature_layers, np.int32)
        places = np.full(vocab, -1, np.int32)
        places[head.tokens] = np.arange(len(head.tokens), dtype=np.int32)
        ending = np.zeros(vocab, np.uint8)
        ending[[token for token in ends if token < vocab]] = 1
        self._kept += [layers, places, ending, head.tokens]
        self._head_frame = {
            "features": len(layers),
            "target_vocab": vocab,
            "feature_layers": layers.ctypes.data,
            "embedding_norm": self._vector(f"{LAYER}input_layernorm.weight"),
            "fc": self._packed("fc").struct,
            "token_of": head.tokens.ctypes.data,
            "place_of": places.ctypes.data,
            "ends": ending.ctypes.data,
        }
        self._weights = {}

    def head_arguments(self, *, num_blocks: int, block_size: int) -> HeadModel:
        """The C structure; what it points to lives as long as this object."""
        model = self.arguments(num_blocks=num_blocks, block_size=block_size)
        return HeadModel(m=model, **self._head_frame)

    def bytes_per_token(self) -> int:
        """Of its cache: keys, values and the kept feature."""
        shape = self.shape
        numbers = 2 * shape.kv_heads * shape.head_dim + shape.hidden
        return numbers * (4 if self.wide_cache else 2)


class DraftItem(NamedTuple):
    """A sequence to draft for: all its tokens but the last are computed, and there are two or more.

    `block_table` reaches `limit` tokens behind the last. `chances` float32 [16, 16]: see
    `Calibration` in drafters/eagle.py.
    """

    sampler: Sampler
    tokens: list[int]
    prompt_length: int
    block_table: list[int]
    limit: int
    chances: NDArray[np.float32]


class HeadDraft(NamedTuple):
    tokens: list[int]
    probabilities: list[float]
    """Of each token by the head's own logits, before temperature and penalties."""
    confidence: list[float]


class HeadRunner:
    """Drafts with a head over the cache of its target's runner, which owns the head's."""

    def __init__(self, runner: NativeRunner, head: NativeHead) -> None:
        """Before the runner's first step. Raises NoKernelsError where memory is refused."""
        self.head = head
        self._runner = runner
        runner.attach(head)
        self._call = DraftArguments()

    def draft(self, items: Sequence[DraftItem], *, floor: float, usual: float) -> list[HeadDraft]:
        """At most `limit` tokens for each item; writes the head's cache behind their last tokens.

        A draft stops where its confidence, times `usual`, is below `floor`, and before a token that
        ends a text.
        """
        count = len(items)
        limits = np.array([min(item.limit, CHANCE_PLACES) for item in items], np.int32)
        firsts = np.concatenate([[0], np.cumsum(limits)[:-1]]).astype(np.uint64)
        total = int(limits.sum())
        tokens = np.empty(total, np.int32)
        figures = np.empty((2, total), np.float32)
        frame = np.zeros(count, DRAFTING)
        asked = np.zeros(count, JUDGEMENT)
        kept: list[object] = []
        for n, item in enumerate(items):
            length = len(item.tokens)
            table = np.array(item.block_table, np.int32)
            kept.append(table)
            frame[n]["token"], frame[n]["place"] = item.tokens[-1], length - 1
            frame[n]["blocks"], frame[n]["chances"] = table.ctypes.data, item.chances.ctypes.data
            asked[n] = request_of(item.sampler)
            if item.sampler.penalised:
                history = np.array(item.tokens, np.int32)
                kept.append(history)
                asked[n]["history"] = history.ctypes.data
            asked[n]["history_length"], asked[n]["prompt_length"] = length, item.prompt_length
            asked[n]["position"] = length - item.prompt_length
        at = np.arange(count, dtype=np.uint64) * np.uint64(JUDGEMENT.itemsize)
        frame["limit"] = limits
        frame["judgement"] = asked.ctypes.data + at
        frame["tokens"] = asked["draft"] = tokens.ctypes.data + np.uint64(4) * firsts
        frame["probability"] = figures[0].ctypes.data + np.uint64(4) * firsts
        frame["confidence"] = figures[1].ctypes.data + np.uint64(4) * firsts
        self._call.count, self._call.drafts = count, frame.ctypes.data
        self._call.floor, self._call.usual = floor, usual
        self._runner.draft(self._call)
        drafts: list[HeadDraft] = []
        for first, drafted in zip(firsts.tolist(), frame["count"].tolist(), strict=True):
            end = first + drafted
            probabilities, confidence = figures[:, first:end].tolist()
            drafts.append(HeadDraft(tokens[first:end].tolist(), probabilities, confidence))
        return drafts

    def profile(self, num_blocks: int) -> StepCost:
        """Seconds per drafted token by sequences drafted for at once. Overwrites the cache."""
        size = self._runner.block_size
        table = list(range(min(num_blocks, -(-PROFILE_CONTEXT // size))))
        return _profiled(self, table, min(len(table) * size, self.head.shape.context))


def _profiled(runner: HeadRunner, table: list[int], end: int) -> StepCost:
    sampler = Sampler(SamplingParams(temperature=0.0), 0, runner.head.target_vocab)
    sure = np.ones((CHANCE_PLACES, CHANCE_LEVELS), np.float32)
    item = DraftItem(sampler, [0] * (end - PROFILE_LENGTH), 1, table, PROFILE_LENGTH, sure)
    fastest = dict.fromkeys(PROFILE_SEQUENCES, math.inf)
    for number in range(PROFILE_ROUNDS + 1):
        for count in PROFILE_SEQUENCES:
            begin = time.perf_counter()
            drafts = runner.draft([item] * count, floor=0.0, usual=1.0)
            seconds = time.perf_counter() - begin
            if number:
                # A draft may end early; the first pass, which finds that out, is made anyway.
                passes = min(max(len(draft.tokens) for draft in drafts) + 1, PROFILE_LENGTH)
                fastest[count] = min(fastest[count], seconds / passes)
    return StepCost(list(fastest.items()))
