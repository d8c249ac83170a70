"""The same figures of a head as it is served: quantised, on the target's own kernels.

Along recorded texts again, so that both can be compared on the very same tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from engine.kernels.library import CHANCE_LEVELS, CHANCE_PLACES, Pool, load
from engine.loading.blocks import load_blocks
from engine.loading.head import load_head
from engine.loading.parts import model_shape, rotary_of
from engine.model.batch import Span
from engine.model.draft_head import DraftItem
from engine.model.native import NativeModel, NativeRunner, weights_of
from engine.model.native_head import NativeHead, NativeHeadRunner
from engine.sampling.params import SamplingParams
from engine.sampling.sampler import Sampler
from engine.training.evaluation import DRAFT_LENGTH, Tally, walk

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from engine.loading.checkpoint import Checkpoint
    from engine.training.documents import Document
    from engine.training.evaluation import Figures

BLOCK = 16


class ServedHead:
    """A target and its head on the CPU's kernels, for one text at a time."""

    def __init__(self, checkpoint: Checkpoint, folder: Path, *, threads: int, longest: int) -> None:
        """`longest`: tokens of a text. Raises CheckpointError, or NoKernelsError where there are no
        kernels for this machine or shape.
        """
        self._pool = Pool(load(), threads)
        shape = model_shape(checkpoint.config)
        weights = None if checkpoint.blocks is None else load_blocks(checkpoint.blocks)
        self._target = NativeModel(
            self._pool,
            shape,
            weights or weights_of(checkpoint.tensors(None), "bfloat16"),
            rotary_of(checkpoint.config),
        )
        published = load_head(folder, shape)
        known = len(published.tokens)
        head = NativeHead(
            self._target,
            published,
            model_shape(published.config)._replace(vocab=known, context=shape.context),
            rotary_of(published.config),
            matrices="float32" if self._target.wide_cache else "int8",
            ends=frozenset(),
        )
        blocks = -(-(longest + DRAFT_LENGTH) // BLOCK)
        self._table = list(range(blocks))
        self._runner = NativeRunner(self._target, num_blocks=blocks, block_size=BLOCK)
        self._head = NativeHeadRunner(self._runner, head)
        self._sure = np.ones((CHANCE_PLACES, CHANCE_LEVELS), np.float32)

    @property
    def dtype(self) -> str:
        return self._target.dtype

    def close(self) -> None:
        self._runner.close()
        self._pool.close()

    def walk(self, document: Document, temperature: float, seed: int) -> tuple[int, int]:
        """(tokens, verification steps) of the answer, see `evaluation.walk`; written by this target
        at this temperature with this seed, so that its choice at each place is the recorded token.
        """
        tokens, start = document
        sampler = Sampler(SamplingParams(temperature=temperature), seed, self._target.shape.vocab)
        length = len(tokens)
        self._runner.run([Span(tokens, 0, self._table, length)])
        right = np.zeros((DRAFT_LENGTH, length - start - 1), np.bool_)
        # From the end: a draft leaves its keys where later text stood, never where earlier does.
        for place in range(length - 1, start, -1):
            item = DraftItem(sampler, tokens[:place], start, self._table, DRAFT_LENGTH, self._sure)
            (draft,) = self._head.draft([item], floor=0.0, usual=1.0)
            for step, (token, said) in enumerate(zip(draft.tokens, tokens[place:], strict=False)):
                if token != said:
                    break
                right[step, place - start - 1] = True
        return walk(right)


def evaluate_served(
    served: ServedHead, documents: Iterable[Document], temperature: float, seeds: Iterable[int]
) -> Figures:
    """Without acceptance by place, which only the unrolled head has. `seeds`: the documents'."""
    tally = Tally(0)
    for document, seed in zip(documents, seeds, strict=True):
        if len(document.tokens) > document.start + 1:
            tally.walked(*served.walk(document, temperature, seed))
    return tally.figures()
