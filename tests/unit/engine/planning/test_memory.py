"""What a GPU's memory is divided into, and what is said where it does not suffice."""

from __future__ import annotations

import pytest

from engine.errors import EngineConfigError
from engine.model.llama import ModelShape
from engine.planning.memory import (
    MIB,
    DeviceMemory,
    cache_blocks,
    check_weights,
    placed,
    weight_bytes,
)

GIB = 1024 * MIB
MEMORY = DeviceMemory("cuda:0", total=80 * GIB, free=60 * GIB, step=2 * GIB, graphs=GIB)
LLAMA_8B = ModelShape(128256, 4096, 14336, 32, 32, 8, 128, 1e-5, 131072)
BLOCK = 2 * MIB
FITS = int((57 - 0.03 * 80) * GIB) // BLOCK


def blocks(*, asked: int | None = None, mib: int | None = None, useful: int = 10**6) -> int:
    return cache_blocks(MEMORY, BLOCK, asked=asked, asked_mib=mib, useful=useful)


def test_weights_of_a_known_model_are_counted() -> None:
    assert weight_bytes(LLAMA_8B, 2, tied=False) == pytest.approx(16.06e9, rel=0.001)
    less = weight_bytes(LLAMA_8B, 2, tied=True)
    assert weight_bytes(LLAMA_8B, 2, tied=False) - less == 2 * 128256 * 4096


def test_cache_takes_what_is_left_as_far_as_it_is_of_use() -> None:
    assert blocks() == FITS
    assert blocks(useful=1000) == 1000
    assert blocks(asked=77) == 77
    assert blocks(mib=100) == 50


def test_more_than_fits_is_refused_with_what_would() -> None:
    with pytest.raises(EngineConfigError, match=f"kv_blocks={FITS} or less would fit") as caught:
        blocks(asked=FITS + 1)
    assert caught.value.param == "kv_blocks"
    with pytest.raises(EngineConfigError, match="kv_memory_mib=") as caught:
        blocks(mib=60 * 1024)
    assert caught.value.param == "kv_memory_mib"
    most = int(caught.value.message.rpartition("kv_memory_mib=")[2].split()[0])
    assert blocks(mib=most) <= FITS


def test_no_room_beside_a_step_is_said() -> None:
    full = MEMORY._replace(free=3 * GIB)
    with pytest.raises(EngineConfigError, match="no room") as caught:
        cache_blocks(full, BLOCK, asked=None, asked_mib=None, useful=10)
    assert caught.value.param == "max_step_tokens"


def test_weights_that_do_not_fit_are_refused_with_a_size_that_would() -> None:
    check_weights({"small": GIB}, "cuda:0", GIB)
    with pytest.raises(EngineConfigError, match=r"big 140,288 MiB, draft 1,024 MiB.*34\.4 billion"):
        check_weights({"big": 137 * GIB, "draft": GIB}, "cuda:0", 64 * GIB)


def test_engines_spread_over_gpus_the_largest_first() -> None:
    needs = {"small": 10 * GIB, "large": 60 * GIB, "twin": 10 * GIB}
    assert placed(needs, [80 * GIB, 40 * GIB]) == {"large": 0, "small": 1, "twin": 1}


def test_an_engine_without_room_is_named() -> None:
    with pytest.raises(EngineConfigError, match=r"b needs 30,720 MiB.*beside a"):
        placed({"a": 60 * GIB, "b": 30 * GIB}, [80 * GIB])
    with pytest.raises(EngineConfigError, match="beside nothing else"):
        placed({"a": GIB}, [])
