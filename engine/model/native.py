"""A whole step on the CPU by our own kernels (engine/kernels/cpu): model, cache, sampling.

Exact by construction: each row's sums have one order, whatever rows, threads or cuts stand beside
it (the comments in the C files say why).
"""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING

import numpy as np

from engine.errors import EngineError
from engine.kernels.build import NoKernelsError
from engine.kernels.library import JUDGEMENT, LANES, SPAN, Layer, StepArguments
from engine.loading.weights import BlockWeight, Kind, of_tensor
from engine.model.packed import PackedModel, Rotary
from engine.model.runner import profiled
from engine.sampling.sampler import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from numpy.typing import NDArray

    from engine.kernels.library import DraftArguments, Pool
    from engine.loading.weights import WeightType
    from engine.model.batch import Span
    from engine.model.llama import ModelShape
    from engine.model.native_head import NativeHead
    from engine.sampling.sampler import Judged, Sampler
    from engine.scheduling.draft_length import StepCost


class NativeModel(PackedModel):
    """Packed weights of one model. Holds no per-sequence state."""

    def __init__(
        self,
        pool: Pool,
        shape: ModelShape,
        weights: Mapping[str, BlockWeight],
        rotary: Rotary,
    ) -> None:
        """`weights` by their Hugging Face names. Raises NoKernelsError for a shape the kernels do
        not take, KeyError where a weight is missing.
        """
        super().__init__(pool, shape, weights)
        embedding = self._packed("model.embed_tokens")
        head = self._packed("lm_head") if "lm_head.weight" in weights else embedding
        layers = (Layer * shape.layers)(
            *(self._layer(f"model.layers.{i}.") for i in range(shape.layers))
        )
        self._kept.append(layers)
        self._frame = {
            "layer": layers,
            "embedding": embedding.struct,
            "head": head.struct,
            "norm": self._vector("model.norm.weight"),
        }
        self._frame |= self._rotation(rotary, shape.context)
        self.embedding = embedding.struct
        self.kind = weights["model.layers.0.mlp.down_proj.weight"].kind
        self.wide_cache = self.kind is Kind.FLOAT32
        self._weights = {}

    @property
    def dtype(self) -> str:
        return self.kind.name.lower()


def weights_of(tensors: Mapping[str, torch.Tensor], matrices: WeightType) -> dict[str, BlockWeight]:
    """A checkpoint's tensors as kernels take them: vectors in float32, matrices as asked; with
    "int4" the embedding and the head in int8.
    """
    weights: dict[str, BlockWeight] = {}
    for name, tensor in tensors.items():
        if tensor.dim() == 1:
            weights[name] = of_tensor(tensor.reshape(1, -1), "float32")
        elif matrices == "int4" and ("embed_tokens" in name or "lm_head" in name):
            weights[name] = of_tensor(tensor, "int8")
        else:
            weights[name] = of_tensor(tensor, matrices)
    return weights


class NativeRunner:
    """Runs steps of one model over its own KV cache. Used by one thread only."""

    def __init__(self, model: NativeModel, *, num_blocks: int, block_size: int) -> None:
        """Raises NoKernelsError where memory is refused."""
        self.model = model
        self._library = model.pool.library
        self._pool = model.pool
        arguments = model.arguments(num_blocks=num_blocks, block_size=block_size)
        self._handle = self._library.runner_new(self._pool.handle, ctypes.byref(arguments))
        if not self._handle:
            raise NoKernelsError("the KV cache does not fit into memory")
        self._sampler = self._library.sampler_new(self._pool.handle, model.shape.vocab)
        if not self._sampler:
            raise NoKernelsError("the sampler's tables do not fit into memory")
        self._num_blocks, self.block_size = num_blocks, block_size
        self._stride = -(-model.shape.vocab // LANES) * LANES
        self._logits = np.empty((0, self._stride), np.float32)
        self._step = StepArguments()
        self.broken: frozenset[int] = frozenset()
        """Spans of the last run in which a row's values were no numbers."""

    def attach(self, head: NativeHead) -> None:
        """From the first step on, write the head's keys and values too. Raises NoKernelsError."""
        arguments = head.head_arguments(num_blocks=self._num_blocks, block_size=self.block_size)
        if self._library.head_new(self._handle, ctypes.byref(arguments)):
            raise NoKernelsError("the draft head's cache does not fit into memory")

    def draft(self, call: DraftArguments) -> None:
        """One call of the attached head; see `HeadRunner.draft`."""
        if self._library.draft(self._handle, ctypes.byref(call)):
            raise EngineError("memory for a draft's rows was refused")

    def run(self, spans: Sequence[Span]) -> NDArray[np.float32]:
        """Logits [rows wanted, vocab] of `spans`, in their order; valid until the next run.

        Mutates the KV cache.
        """
        tokens: list[int] = []
        wanted: list[int] = []
        frame = np.zeros(len(spans), SPAN)
        tables: list[NDArray[np.int32]] = []
        for number, span in enumerate(spans):
            first, count = len(tokens), len(span.tokens)
            table = np.array(span.block_table, np.int32)
            tables.append(table)
            frame[number] = (first, count, span.start, 0, table.ctypes.data)
            tokens += span.tokens
            wanted += range(first + span.logits_from, first + count)
        token_array = np.array(tokens, np.int32)
        wanted_array = np.array(wanted, np.int32)
        broken = np.empty(len(tokens), np.int32)
        if len(wanted) > len(self._logits):
            self._logits = np.empty((len(wanted), self._stride), np.float32)
        step = self._step
        step.rows, step.spans, step.wanted = len(tokens), len(spans), len(wanted)
        step.tokens = token_array.ctypes.data
        step.span = frame.ctypes.data
        step.wanted_rows = wanted_array.ctypes.data
        step.logits = self._logits.ctypes.data
        step.broken = broken.ctypes.data
        if self._library.step(self._handle, ctypes.byref(step)):
            raise EngineError("memory for a step's rows was refused")
        self.broken = frozenset()
        if broken.any():
            firsts = [0, *np.cumsum(frame["rows"])[:-1].tolist()]
            self.broken = frozenset(
                n for n, at in enumerate(firsts) if broken[at : at + frame["rows"][n]].any()
            )
        return self._logits[: len(wanted), : self.model.shape.vocab]

    def shares(self, forward: float, judged: float) -> tuple[float, float]:
        return forward, judged

    def last_parts(self) -> dict[str, float]:
        """Seconds of the last step; "stalled" is part of the others: waiting for a thread that the
        system had put aside.
        """
        step = self._step
        parts = {
            "products": step.linear_ns,
            "attention": step.attention_ns,
            "rows": step.row_ns,
            "stalled": step.stalled_ns,
        }
        return {name: ns / 1e9 for name, ns in parts.items()}

    def judge(self, logits: NDArray[np.float32], items: Sequence[Judged]) -> list[Verdict]:
        """Verdicts on what follows each item's tokens; see `Sampler.verify`.

        `logits` as `run` gave them: for each item a row per draft token and one more.
        """
        if not items:
            return []
        frame = np.zeros(len(items), JUDGEMENT)
        rows = [len(item.draft) + 1 for item in items]
        firsts = np.concatenate([[0], np.cumsum(rows)[:-1]])
        chosen = np.empty(len(logits), np.int32)
        logprobs = np.empty(len(logits), np.float64)
        drafts = np.array([t for item in items for t in (*item.draft, 0)], np.int32)
        kept: list[object] = []
        for number, item in enumerate(items):
            frame[number] = request_of(item.sampler)
            if item.sampler.penalised:
                history = np.array(item.tokens, np.int32)
                kept.append(history)
                frame[number]["history"] = history.ctypes.data
            if item.masks is not None:
                masks = np.ascontiguousarray(item.masks)
                kept.append(masks)
                frame[number]["masks"] = masks.ctypes.data
                frame[number]["mask_words"] = masks.shape[1]
        frame["rows"] = rows
        frame["first_row"] = firsts
        lengths = np.array([len(item.tokens) for item in items])
        prompts = np.array([item.prompt_length for item in items])
        frame["history_length"], frame["prompt_length"] = lengths, prompts
        frame["position"] = lengths - prompts
        at = firsts.astype(np.uint64)
        frame["draft"] = drafts.ctypes.data + 4 * at
        frame["tokens"] = chosen.ctypes.data + 4 * at
        asked = np.array([item.sampler.wants_logprobs for item in items])
        frame["logprobs"] = np.where(asked, logprobs.ctypes.data + 8 * at, np.uint64(0))
        self._library.judge(
            self._sampler, frame.ctypes.data, len(items), logits.ctypes.data, self._stride
        )
        verdicts: list[Verdict] = []
        for first, count, failed, with_logprobs in zip(
            firsts.tolist(), frame["count"].tolist(), frame["failed"].tolist(), asked, strict=True
        ):
            tokens = chosen[first : first + count].tolist()
            probs = logprobs[first : first + count].tolist() if with_logprobs else None
            # Before a row that failed, all tokens are drafted ones.
            accepted = count if failed else count - 1
            verdicts.append(Verdict(tokens, accepted, probs, failed=bool(failed)))
        return verdicts

    def profile(self, num_blocks: int) -> StepCost:
        """Time steps of several row counts, as `profiled` does. Overwrites the cache."""
        shape = self.model.shape
        return profiled(self.run, num_blocks, self.block_size, shape.context)

    def close(self) -> None:
        """Give its memory back; no call may follow."""
        if self._handle:
            self._library.sampler_free(self._sampler)
            self._library.runner_free(self._handle)
            self._handle = None


def request_of(sampler: Sampler) -> NDArray[np.void]:
    """The part of a judgement that stays the same for a whole stream, made once."""
    if sampler.native is not None:
        return sampler.native
    params = sampler.params
    record = np.zeros(1, JUDGEMENT)
    record["seed"] = sampler.seed
    record["temperature"] = 0.0 if sampler.greedy else sampler.temperature
    record["top_p"] = 2.0 if params.top_p is None else params.top_p
    record["min_p_log"] = math.log(params.min_p) if params.min_p else 1.0
    record["repetition"] = params.repetition_penalty
    record["presence"] = params.presence_penalty
    record["frequency"] = params.frequency_penalty
    record["penalised"] = sampler.penalised
    record["top_k"] = params.top_k or 0
    record["biased"] = len(sampler.biased)
    record["bias_tokens"] = sampler.biased.ctypes.data
    record["bias_values"] = sampler.bias.ctypes.data
    request = record[0]
    sampler.native = request
    return request
