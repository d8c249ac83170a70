"""What an operator can set about the engine, read once and checked at the edge."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from engine.errors import EngineConfigError

PositiveInt = Annotated[int, Meta(ge=1)]

MAX_VERIFY_DELAY_MS = 1000.0
"""A cancel is taken between two steps: it never waits longer than this for a pause to end."""

CPU_CACHE_MIB = 512
"""Memory for keys and values on a CPU, where nobody says how much."""

MAX_DRAFT_LENGTH = 16
"""Rows a single sequence may add to a verification step; more never paid off on any drafter we
have.
"""


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The engine: one model, one device."""

    model: str = "smollm2-135m-instruct"
    """Hugging Face folder, GGUF file or hub name of the target model."""
    device: Annotated[str, Meta(pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")] = "auto"
    """"cpu", "cuda" (the first GPU) or "cuda:1"; "auto": the first GPU where PyTorch can use one,
    else the CPU.
    """
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8", "int4"] = "auto"
    """Of the weights; "auto": as the checkpoint has them, where the kernels can, else bfloat16.
    "int8" and "int4" need the native kernels, "float16" torch's.
    """
    kernels: Literal["auto", "native", "torch"] = "auto"
    """"native": our own CPU kernels, compiled at the first start; "auto": these on a CPU where they
    can be built, else torch.
    """
    mode: Literal["exact", "fast"] = "exact"
    """"exact": bitwise the same text whatever the batch, draft length, chunking or cache state;
    "fast": without that promise.
    """
    threads: PositiveInt | None = None
    """Compute threads; None: one per available core."""
    context_length: PositiveInt | None = None
    """Longest prompt + completion, tokens; None: what the model was trained for."""
    max_sequences: PositiveInt = 32
    """Most sequences running at once; more wait."""
    max_waiting: PositiveInt = 256
    """Most sequences that wait; one more is refused with `overloaded`. A gateway has a queue of its
    own and hands over no more than run: this is the last resort, of other callers and of a gateway
    whose `overload.places` is larger than `max_sequences`."""
    max_step_tokens: PositiveInt = 256
    """Most rows in one step: decode and draft rows first, the rest goes to prefill chunks."""
    block_size: Literal[16, 32, 64] = 16
    """Tokens per KV block."""
    kv_blocks: PositiveInt | None = None
    """Blocks of the KV cache; None: as many as fit into `kv_memory_mib`."""
    kv_memory_mib: PositiveInt | None = None
    """Memory for the KV cache; None: 512 on a CPU; on a GPU what is left of it, as far as
    `max_sequences` of full length can use it.
    """
    prefix_cache: bool = True
    """Whether prompts find the blocks of earlier ones that began alike."""
    drafter: Literal["none", "ngram", "suffix", "head", "combined", "model"] | None = None
    """For requests that do not choose; None: "model" where there is a draft model, "combined"
    (head, ngram and suffix) where there is a head, else "ngram".
    """
    draft_model: str | None = None
    """Second, smaller checkpoint with the target model's own tokenizer, to draft with."""
    draft_head: str | None = None
    """Folder of an EAGLE-3 head trained for `model`; None: the one that comes with Wetink, where it
    has one for this model. Heads need the native kernels or a GPU.
    """
    draft_length: Annotated[int, Meta(ge=0, le=MAX_DRAFT_LENGTH)] = 8
    """Most tokens drafted per sequence and step."""
    adaptive_draft: bool = True
    """Choose the length per step from measured acceptance and measured step cost, up to
    `draft_length`.
    """
    verify_delay_ms: Annotated[float, Meta(ge=0.0, le=MAX_VERIFY_DELAY_MS)] = 0.0
    """For demonstrations: every step pauses so long between sending its drafts and verifying them,
    as if the target were that much larger. Counted as part of a step's cost.
    """


def decode_config(text: str) -> EngineConfig:
    """Raises `EngineConfigError` naming the setting and what is allowed."""
    try:
        return msgspec.json.decode(text, type=EngineConfig)
    except msgspec.MsgspecError as error:
        problem, _, path = str(error).partition(" - at ")
        key = re.sub(r"\W", "", path)
        properties = msgspec.json.schema(EngineConfig)["$defs"]["EngineConfig"]["properties"]
        if key not in properties:
            known = ", ".join(properties)
            raise EngineConfigError(f"{problem}; settings: {known}", "config") from error
        allowed = _choices(properties[key])
        choices = f"; allowed: {', '.join(map(str, allowed))}" if allowed else ""
        if key == "device":
            problem, choices = "unknown device", "; allowed: auto, cpu, cuda, cuda:0, cuda:1, …"
        raise EngineConfigError(f"{problem}{choices}", key) from error


def _choices(schema: dict[str, Any]) -> list[object]:
    """The values of a setting that has a list of them; limits of others are in msgspec's words."""
    kinds = schema.get("anyOf", [schema])
    return [value for kind in kinds for value in kind.get("enum", []) if value is not None]
