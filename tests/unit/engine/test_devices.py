"""Which device is taken, and what is said where it cannot be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from engine import doctor
from engine.config import EngineConfig, decode_config
from engine.devices import chosen_device
from engine.errors import EngineConfigError

if TYPE_CHECKING:
    from pathlib import Path


def gpus(monkeypatch: pytest.MonkeyPatch, count: int, *, build: str | None = "12.8") -> None:
    """A machine with so many, as PyTorch tells it."""
    monkeypatch.setattr(torch.version, "cuda", build)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def refused(asked: str, kernels: str = "auto") -> EngineConfigError:
    with pytest.raises(EngineConfigError) as caught:
        chosen_device(asked, kernels)
    return caught.value


def test_engine_takes_the_first_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 2)
    assert chosen_device("auto", "auto") == torch.device("cuda:0")
    assert chosen_device("auto", "native") == torch.device("cpu")
    assert chosen_device("cuda", "torch") == torch.device("cuda:0")
    assert chosen_device("cuda:1", "auto") == torch.device("cuda:1")
    assert chosen_device("cpu", "auto") == torch.device("cpu")
    gpus(monkeypatch, 0)
    assert chosen_device("auto", "auto") == torch.device("cpu")


def test_engine_says_that_its_torch_is_for_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 0, build=None)
    error = refused("cuda")
    assert error.param == "device"
    assert "built for CPUs" in error.message
    assert "install a CUDA build" in error.message


def test_engine_says_that_no_gpu_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 0)
    assert "nvidia-smi" in refused("cuda:1").message


@pytest.mark.parametrize(("count", "there"), [(1, "1 GPU (cuda:0;"), (2, "(cuda:0 … cuda:1;")])
def test_engine_says_how_many_gpus_there_are(
    count: int, there: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(monkeypatch, count)
    assert there in refused("cuda:7").message


def test_native_kernels_do_not_go_with_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 1)
    assert refused("cuda", "native").param == "kernels"


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:", "mps", "cpu:0"])
def test_configuration_refuses_devices_there_are_not(device: str) -> None:
    with pytest.raises(EngineConfigError, match="allowed: auto, cpu, cuda") as caught:
        decode_config(f'{{"device": "{device}"}}')
    assert caught.value.param == "device"


def finding(config: EngineConfig) -> doctor.Finding:
    return next(each for each in doctor.examine(config) if each.about == "device")


def test_doctor_says_what_the_engine_would(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 0, build=None)
    found = finding(EngineConfig(device="cuda"))
    assert found.state == "broken"
    assert "install a CUDA build" in found.found


def test_doctor_finds_a_gpu_that_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(monkeypatch, 0, build=None)
    monkeypatch.setattr(doctor, "NVIDIA_DEVICE", str(tmp_path))
    assert finding(EngineConfig()).state == "lost"
    monkeypatch.setattr(doctor, "NVIDIA_DEVICE", str(tmp_path / "none"))
    assert finding(EngineConfig()).state == "ok"
