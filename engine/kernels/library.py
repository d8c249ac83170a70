"""The CPU kernels as Python sees them: ctypes over the plain C interface of cpu/step.c."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_float, c_int32, c_int64, c_size_t, c_void_p
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from engine.kernels.build import NoKernelsError, library_path, usable_isas

if TYPE_CHECKING:
    from numpy.typing import NDArray

LANES = 16
"""Floats a kernel handles at a time; outputs and vocabulary are rounded up to it."""


class Weight(Structure):
    _fields_ = (
        ("kind", c_int32),
        ("out", c_int32),
        ("in_", c_int32),
        ("pad", c_int32),
        ("data", c_void_p),
        ("bias", c_void_p),
    )


class Layer(Structure):
    _fields_ = (
        ("attention_norm", c_void_p),
        ("mlp_norm", c_void_p),
        ("qkv", Weight),
        ("out", Weight),
        ("gate_up", Weight),
        ("down", Weight),
    )


class Model(Structure):
    _fields_ = (
        ("vocab", c_int32),
        ("hidden", c_int32),
        ("intermediate", c_int32),
        ("layers", c_int32),
        ("heads", c_int32),
        ("kv_heads", c_int32),
        ("head_dim", c_int32),
        ("context", c_int32),
        ("block_size", c_int32),
        ("num_blocks", c_int32),
        ("wide_cache", c_int32),
        ("pad", c_int32),
        ("rms_eps", c_float),
        ("query_scale", c_float),
        ("cosines", c_void_p),
        ("sines", c_void_p),
        ("norm", c_void_p),
        ("embedding", Weight),
        ("head", Weight),
        ("layer", POINTER(Layer)),
    )


class HeadModel(Structure):
    """head_model_t of cpu/head.h."""

    _fields_ = (
        ("m", Model),
        ("features", c_int32),
        ("target_vocab", c_int32),
        ("feature_layers", c_void_p),
        ("embedding_norm", c_void_p),
        ("fc", Weight),
        ("token_of", c_void_p),
        ("place_of", c_void_p),
        ("ends", c_void_p),
    )


class DraftArguments(Structure):
    """draft_t of cpu/head.h."""

    _fields_ = (
        ("count", c_int32),
        ("pad", c_int32),
        ("drafts", c_void_p),
        ("floor", c_float),
        ("usual", c_float),
        ("total_ns", c_int64),
    )


class StepArguments(Structure):
    _fields_ = (
        ("rows", c_int32),
        ("spans", c_int32),
        ("wanted", c_int32),
        ("pad", c_int32),
        ("tokens", c_void_p),
        ("span", c_void_p),
        ("wanted_rows", c_void_p),
        ("logits", c_void_p),
        ("broken", c_void_p),
        ("linear_ns", c_int64),
        ("attention_ns", c_int64),
        ("row_ns", c_int64),
        ("total_ns", c_int64),
        ("stalled_ns", c_int64),
    )


SPAN = np.dtype(
    [
        ("first_row", np.int32),
        ("rows", np.int32),
        ("start", np.int32),
        ("pad", np.int32),
        ("blocks", np.uint64),
    ]
)

DRAFTING = np.dtype(
    [
        ("token", np.int32),
        ("place", np.int32),
        ("limit", np.int32),
        ("count", np.int32),
        ("blocks", np.uint64),
        ("chances", np.uint64),
        ("judgement", np.uint64),
        ("tokens", np.uint64),
        ("probability", np.uint64),
        ("confidence", np.uint64),
    ]
)
"""drafting_t of cpu/head.h."""

CHANCE_PLACES = 16
CHANCE_LEVELS = 16

JUDGEMENT = np.dtype(
    [
        ("seed", np.uint64),
        ("top_p", np.float64),
        ("presence", np.float64),
        ("frequency", np.float64),
        ("temperature", np.float32),
        ("min_p_log", np.float32),
        ("repetition", np.float32),
        ("penalised", np.int32),
        ("top_k", np.int32),
        ("biased", np.int32),
        ("bias_tokens", np.uint64),
        ("bias_values", np.uint64),
        ("history", np.uint64),
        ("draft", np.uint64),
        ("masks", np.uint64),
        ("history_length", np.int32),
        ("prompt_length", np.int32),
        ("position", np.int32),
        ("first_row", np.int32),
        ("rows", np.int32),
        ("mask_words", np.int32),
        ("tokens", np.uint64),
        ("logprobs", np.uint64),
        ("count", np.int32),
        ("failed", np.int32),
    ],
    align=True,
)
"""judgement_t of cpu/sample.h."""


class Library:
    """A loaded library and its functions, with their types."""

    def __init__(self, path: str) -> None:
        """Raises OSError where it cannot be loaded."""
        lib = ctypes.CDLL(path)

        def function(name: str, result: object, *arguments: object) -> ctypes._NamedFuncPointer:
            found = getattr(lib, name)
            found.restype, found.argtypes = result, arguments
            return found

        self._isa = function("wetink_isa", ctypes.c_char_p)
        self.alloc = function("wetink_alloc", c_void_p, c_size_t)
        self.free = function("wetink_free", None, c_void_p)
        self.pool_new = function("wetink_pool_new", c_void_p, c_int32)
        self.pool_free = function("wetink_pool_free", None, c_void_p)
        self.runner_new = function("wetink_runner_new", c_void_p, c_void_p, POINTER(Model))
        self.runner_free = function("wetink_runner_free", None, c_void_p)
        self.step = function("wetink_step", c_int32, c_void_p, POINTER(StepArguments))
        self.head_new = function("wetink_head_new", c_int32, c_void_p, POINTER(HeadModel))
        self.draft = function("wetink_draft", c_int32, c_void_p, POINTER(DraftArguments))
        self.sampler_new = function("wetink_sampler_new", c_void_p, c_void_p, c_int32)
        self.sampler_free = function("wetink_sampler_free", None, c_void_p)
        self.judge = function("wetink_judge", None, c_void_p, c_void_p, c_int32, c_void_p, c_size_t)
        self.linear = function(
            "wetink_linear", c_int32, c_void_p, POINTER(Weight), c_void_p, c_int32, c_void_p
        )

    @property
    def isa(self) -> str:
        return self._isa().decode()


@cache
def load(isa: str | None = None) -> Library:
    """The kernels for `isa`, or for the best this processor has. Raises `NoKernelsError`."""
    path = library_path(isa or usable_isas()[0])
    try:
        return Library(str(path))
    except OSError as error:
        raise NoKernelsError(f"{path.name} cannot be loaded: {error}") from error


class Pool:
    """The threads that a step's kernels run on, the caller's included."""

    def __init__(self, library: Library, threads: int) -> None:
        self.library = library
        self.threads = threads
        self.handle = library.pool_new(threads)
        if not self.handle:
            raise NoKernelsError(f"{threads} threads could not be started")

    def close(self) -> None:
        if self.handle:
            self.library.pool_free(self.handle)
            self.handle = None


class Memory:
    """Bytes outside Python's heap, on huge pages where the system gives them."""

    def __init__(self, library: Library, size: int) -> None:
        self._library = library
        self.address: int | None = library.alloc(max(size, 1))
        if not self.address:
            raise NoKernelsError(f"{size} bytes of memory were refused")
        self.size = size

    def array(self) -> NDArray[np.uint8]:
        """A view; the memory must outlive it."""
        buffer = (ctypes.c_uint8 * self.size).from_address(self.address or 0)
        return np.ctypeslib.as_array(buffer)

    def __del__(self) -> None:
        if self.address:
            self._library.free(self.address)
            self.address = None
