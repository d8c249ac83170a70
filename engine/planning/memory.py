"""What a GPU's memory is divided into, worked out before anything of it is handed out.

Weights lie there already; what a step takes for itself was measured by making the largest one; what
is left, less a margin, is for keys and values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from engine.errors import EngineConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engine.model.llama import ModelShape

MIB = 1024 * 1024
MARGIN = 0.03
"""Share of the device that stays free: libraries take workspaces when they first need them, and
memory gets fragments.
"""


class DeviceMemory(NamedTuple):
    """Of one device, in bytes, once the weights are loaded."""

    name: str
    total: int
    free: int
    step: int
    """What the largest step takes besides weights, keys and values."""
    graphs: int
    """What recorded steps keep for themselves."""

    @property
    def for_cache(self) -> int:
        return int(self.free - self.step - self.graphs - MARGIN * self.total)


def weight_bytes(shape: ModelShape, itemsize: int, *, tied: bool) -> int:
    """Of a Llama-family model's matrices; vectors are too small to matter. `tied`: its embedding is
    its head.
    """
    attention = shape.hidden * shape.head_dim * 2 * (shape.heads + shape.kv_heads)
    layer = attention + 3 * shape.hidden * shape.intermediate
    return itemsize * (shape.layers * layer + shape.vocab * shape.hidden * (1 if tied else 2))


def check_weights(wanted: Mapping[str, int], device: str, free: int) -> None:
    """Raise EngineConfigError where models of these sizes do not fit into `free` bytes."""
    total = sum(wanted.values())
    if total <= free:
        return
    sizes = ", ".join(f"{name} {size // MIB:,} MiB" for name, size in wanted.items())
    raise EngineConfigError(
        f"the weights do not fit on {device}: {sizes}, but {free // MIB:,} MiB are free."
        f" A model of at most {free // MIB:,} MiB would fit, in bfloat16 one of"
        f" {free / 2e9:.1f} billion parameters",
        "model",
    )


def cache_blocks(
    memory: DeviceMemory, per_block: int, *, asked: int | None, asked_mib: int | None, useful: int
) -> int:
    """Blocks of the KV cache on a device: as asked for, else as many as fit, up to `useful`.

    Raises EngineConfigError for more than there is room for, with what would fit.
    """
    fits = memory.for_cache // per_block
    wanted = asked if asked is not None else (asked_mib or 0) * MIB // per_block
    explained = (
        f"{memory.free // MIB:,} MiB are free on {memory.name} after the weights, of which a step"
        f" takes {(memory.step + memory.graphs) // MIB:,} MiB"
    )
    if fits < 1:
        raise EngineConfigError(
            f"no room for a KV cache: {explained}; fewer max_step_tokens take less",
            "max_step_tokens",
        )
    if wanted > fits:
        key = "kv_blocks" if asked is not None else "kv_memory_mib"
        most = fits if asked is not None else memory.for_cache // MIB
        raise EngineConfigError(f"{explained}: {key}={most} or less would fit", key)
    if asked is None and asked_mib is None:
        return min(fits, useful)
    if wanted < 1:
        raise EngineConfigError(
            f"kv_memory_mib={asked_mib} holds no block ({per_block / MIB:.1f} MiB)", "kv_memory_mib"
        )
    return wanted


def placed(needs: Mapping[str, int], free: Sequence[int]) -> dict[str, int]:
    """On which GPU each engine goes: its number, by engine's name.

    needs: bytes by name; free: bytes by GPU. The largest first, each where the most is left, so
    that equal engines spread. Raises EngineConfigError naming the one for which there is no room.
    """
    left = list(free)
    places: dict[str, int] = {}
    for name, need in sorted(needs.items(), key=lambda item: -item[1]):
        best = max(range(len(left)), key=lambda gpu: left[gpu], default=None)
        if best is None or left[best] < need:
            room = max(left, default=0) // MIB
            raise EngineConfigError(
                f"{name} needs {need // MIB:,} MiB, but no GPU has more than {room:,} MiB left"
                f" beside {', '.join(places) or 'nothing else'}",
                "device",
            )
        left[best] -= need
        places[name] = best
    return places
