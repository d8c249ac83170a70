"""An EAGLE-3 head beside a model's native steps; kernels/cpu/head.h says why its cache is right.

Once attached, every step of the target also writes the head's keys and values; `draft` then guesses
the next tokens of any number of sequences in one call. Nothing is kept per sequence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from engine.kernels.library import (
    CHANCE_PLACES,
    DRAFTING,
    JUDGEMENT,
    DraftArguments,
    HeadModel,
    Layer,
)
from engine.loading.head import EMBEDDING
from engine.loading.weights import of_tensor
from engine.model.draft_head import PROFILE_LENGTH, HeadDraft, Profiled, profiled_drafts
from engine.model.native import request_of, weights_of
from engine.model.packed import PackedModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.loading.head import DraftHead
    from engine.loading.weights import WeightType
    from engine.model.draft_head import DraftItem
    from engine.model.llama import ModelShape
    from engine.model.native import NativeModel, NativeRunner
    from engine.model.packed import Rotary
    from engine.scheduling.draft_length import StepCost

LAYER = "midlayer."


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


class NativeHeadRunner:
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

    def passes(self, drafts: Sequence[HeadDraft]) -> list[int]:
        """A pass computes only those whose drafts go on."""
        lengths = [len(draft.tokens) for draft in drafts]
        return [sum(n >= length for n in lengths) for length in range(max(*lengths, 1))]

    def profile(self, num_blocks: int) -> StepCost:
        """Seconds per drafted token by sequences drafted for at once. Overwrites the cache."""

        def made(drafts: list[HeadDraft]) -> int:
            # A draft may end early; the first pass, which finds that out, is made anyway.
            return min(max(len(draft.tokens) for draft in drafts) + 1, PROFILE_LENGTH)

        head = Profiled(self.head.target_vocab, self.head.shape.context, self._runner.block_size)
        return profiled_drafts(
            lambda items: self.draft(items, floor=0.0, usual=1.0), made, head, num_blocks
        )
