"""A whole step on the CPU by our own kernels (engine/kernels/cpu): model, cache, sampling.

Exact by construction: each row's sums have one order, whatever rows, threads or cuts stand beside
it (the comments in the C files say why).
"""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from engine.errors import EngineError
from engine.kernels.build import NoKernelsError
from engine.kernels.library import JUDGEMENT, LANES, SPAN, Layer, Model, StepArguments
from engine.kernels.pack import PackedWeight, interleaved, padded
from engine.loading.weights import BlockWeight, Kind, of_tensor, stacked
from engine.model.runner import profiled
from engine.sampling.sampler import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from numpy.typing import NDArray

    from engine.kernels.library import Pool
    from engine.loading.weights import WeightType
    from engine.model.batch import Span
    from engine.model.llama import ModelShape
    from engine.sampling.sampler import Judged, Sampler
    from engine.scheduling.draft_length import StepCost

INTEGER_WIDTH = 32
"""Inputs per block of the integer kinds."""


class Rotary(NamedTuple):
    """Rotary embedding: `inverse_frequencies` [head_dim / 2] float32, `scale` of its result."""

    inverse_frequencies: NDArray[np.float32]
    scale: float


class NativeModel:
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
        self.shape = shape
        self.pool = pool
        self._weights = weights
        self._kept: list[object] = []
        """What the C structures point to."""
        self._packed_bytes = 0
        _check_shape(shape)
        embedding = self._packed("model.embed_tokens")
        head = self._packed("lm_head") if "lm_head.weight" in weights else embedding
        layers = (Layer * shape.layers)(*(self._layer(i) for i in range(shape.layers)))
        self._kept.append(layers)
        self._frame = {
            "layer": layers,
            "embedding": embedding.struct,
            "head": head.struct,
            "norm": self._vector("model.norm.weight"),
        }
        self._frame |= self._rotation(rotary)
        self.kind = weights["model.layers.0.mlp.down_proj.weight"].kind
        self.wide_cache = self.kind is Kind.FLOAT32
        self._weights = {}

    @property
    def dtype(self) -> str:
        return self.kind.name.lower()

    @property
    def bytes(self) -> int:
        """Memory of the weights."""
        return self._packed_bytes

    def arguments(self, *, num_blocks: int, block_size: int) -> Model:
        """The C structure; what it points to lives as long as this object."""
        shape = self.shape
        return Model(
            vocab=shape.vocab,
            hidden=shape.hidden,
            intermediate=shape.intermediate,
            layers=shape.layers,
            heads=shape.heads,
            kv_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            context=shape.context,
            block_size=block_size,
            num_blocks=num_blocks,
            wide_cache=int(self.wide_cache),
            rms_eps=shape.rms_eps,
            query_scale=shape.head_dim**-0.5,
            **self._frame,
        )

    def _layer(self, number: int) -> Layer:
        prefix = f"model.layers.{number}."

        def matrix(name: str) -> BlockWeight:
            return self._weights[f"{prefix}{name}.weight"]

        parts = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]
        qkv = stacked([matrix(name) for name in parts])
        gate, up = matrix("mlp.gate_proj"), matrix("mlp.up_proj")
        gate_up = interleaved(gate, up)
        if qkv is None or gate_up is None:
            raise NoKernelsError(f"layer {number} mixes weight types within one product")
        return Layer(
            attention_norm=self._vector(f"{prefix}input_layernorm.weight"),
            mlp_norm=self._vector(f"{prefix}post_attention_layernorm.weight"),
            qkv=self._pack(qkv, self._bias([prefix + name for name in parts])).struct,
            out=self._packed(f"{prefix}self_attn.o_proj").struct,
            gate_up=self._pack(gate_up, self._gate_up_bias(prefix)).struct,
            down=self._packed(f"{prefix}mlp.down_proj").struct,
        )

    def _packed(self, name: str) -> PackedWeight:
        return self._pack(self._weights[f"{name}.weight"], self._bias([name]))

    def _pack(self, weight: BlockWeight, bias: NDArray[np.float32] | None) -> PackedWeight:
        packed = PackedWeight(self.pool.library, weight, bias)
        self._kept.append(packed)
        self._packed_bytes += packed.bytes
        return packed

    def _bias(self, names: list[str]) -> NDArray[np.float32] | None:
        found = [self._weights.get(f"{name}.bias") for name in names]
        if found[0] is None:
            return None
        return np.concatenate([bias.values.reshape(-1) for bias in found if bias is not None])

    def _gate_up_bias(self, prefix: str) -> NDArray[np.float32] | None:
        both = self._bias([f"{prefix}mlp.gate_proj", f"{prefix}mlp.up_proj"])
        if both is None:
            return None
        return both.reshape(2, -1, LANES).swapaxes(0, 1).reshape(-1)

    def _vector(self, name: str) -> int:
        """Address of a float32 vector, padded to whole lanes."""
        values = padded(self._weights[name].values.reshape(-1))
        self._kept.append(values)
        return values.ctypes.data

    def _rotation(self, rotary: Rotary) -> dict[str, int]:
        """cos and sin [context, head_dim / 2] of float32 angles, computed in double precision."""
        places = np.arange(self.shape.context, dtype=np.float32)
        angles = np.outer(places, rotary.inverse_frequencies).astype(np.float64)
        cosines = (np.cos(angles) * rotary.scale).astype(np.float32)
        sines = (np.sin(angles) * rotary.scale).astype(np.float32)
        self._kept += [cosines, sines]
        return {"cosines": cosines.ctypes.data, "sines": sines.ctypes.data}


def _check_shape(shape: ModelShape) -> None:
    attended = shape.heads * shape.head_dim
    for name, width in (
        ("hidden size", shape.hidden),
        ("intermediate size", shape.intermediate),
        ("attention width", attended),
    ):
        if width % INTEGER_WIDTH:
            raise NoKernelsError(f"the {name} {width} is no multiple of {INTEGER_WIDTH}")
    if shape.head_dim % LANES:
        raise NoKernelsError(f"the head size {shape.head_dim} is no multiple of {LANES}")


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
        self._block_size = block_size
        self._stride = -(-model.shape.vocab // LANES) * LANES
        self._logits = np.empty((0, self._stride), np.float32)
        self._step = StepArguments()
        self.broken: frozenset[int] = frozenset()
        """Spans of the last run in which a row's values were no numbers."""

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
            frame[number] = _request_of(item.sampler)
            if item.sampler.penalised:
                history = np.array(item.tokens, np.int32)
                kept.append(history)
                frame[number]["history"] = history.ctypes.data
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
        return profiled(self.run, num_blocks, self._block_size, shape.context)

    def close(self) -> None:
        """Give its memory back; no call may follow."""
        if self._handle:
            self._library.sampler_free(self._sampler)
            self._library.runner_free(self._handle)
            self._handle = None


def _request_of(sampler: Sampler) -> NDArray[np.void]:
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
