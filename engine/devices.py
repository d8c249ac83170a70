"""Which device the engine computes on: what was asked for, or why it cannot be had."""

from __future__ import annotations

import torch

from engine.errors import EngineConfigError

CUDA_WHEELS = "https://pytorch.org/get-started/locally"


def chosen_device(asked: str, kernels: str) -> torch.device:
    """`asked`: "auto", "cpu", "cuda" or "cuda:N"; `kernels` as in `EngineConfig`.

    "auto" is the first GPU where PyTorch can use one, unless the CPU's kernels are asked for.
    Raises EngineConfigError with what is missing and how to mend it.
    """
    if asked == "cpu" or (asked == "auto" and kernels == "native"):
        return torch.device("cpu")
    if asked == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if kernels == "native":
        raise EngineConfigError(
            f"device {asked!r} does not go with kernels 'native', which are for CPUs;"
            " allowed: auto, torch",
            "kernels",
        )
    fault = cuda_fault()
    if fault is not None:
        raise EngineConfigError(f"device {asked!r}: {fault}", "device")
    number = int(asked.partition(":")[2] or 0)
    count = torch.cuda.device_count()
    if number >= count:
        there = "cuda:0" if count == 1 else f"cuda:0 … cuda:{count - 1}"
        raise EngineConfigError(
            f"device {asked!r}: this machine shows {count} GPU{'s' * (count != 1)} ({there};"
            " CUDA_VISIBLE_DEVICES may hide others)",
            "device",
        )
    return torch.device("cuda", number)


def cuda_fault() -> str | None:
    """Why PyTorch cannot compute on a GPU here, and what mends it; None where it can."""
    if torch.version.cuda is None:
        return (
            f"this PyTorch ({torch.__version__}) was built for CPUs; install a CUDA build of it"
            f" ({CUDA_WHEELS})"
        )
    if not torch.cuda.is_available():
        return (
            f"PyTorch was built for CUDA {torch.version.cuda}, but no GPU answers: nvidia-smi has"
            " to list one here (in a container: --gpus all), with a driver for that version"
        )
    return None


def prepare(device: torch.device, *, exact: bool) -> None:
    """Have this process compute on `device`. For the engine's process, before anything is loaded.

    `exact`: products may not take shortcuts in how they sum.
    """
    if device.type != "cuda":
        return
    torch.cuda.set_device(device)
    if exact:
        # TF32 for float32 products is off unless asked for.
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
