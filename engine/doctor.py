"""What this machine gives the engine and what it keeps from it.

`python -m engine.doctor --config JSON` prints findings as a JSON list, for `wetink doctor`, whose
process never loads torch.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Literal

import msgspec

from engine.config import CPU_CACHE_MIB, EngineConfig, decode_config
from engine.errors import EngineConfigError
from engine.kernels.build import NEEDED, NoKernelsError, compiler, usable_isas
from engine.loading.pull import EMBEDDED_MODEL, cache_folder, embedded_folder

BEST = next(iter(NEEDED))
MIB = 1024 * 1024
LIBRARIES_MIB = 600
"""What torch, transformers and a tokenizer take before there is a model; measured, about."""
NVIDIA_DEVICE = "/dev/nvidia0"
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """Field by field as gateway/doctor.py reads it."""

    about: str
    state: Literal["ok", "lost", "broken"]
    found: str
    costs: str = ""
    """What is lost by it."""
    mend: str = ""


def examine(config: EngineConfig) -> list[Finding]:
    """Every check, in the order in which one rests on the other."""
    return [
        check(config)
        for check in (
            _processor,
            _compiler,
            _kernels,
            _torch,
            _device,
            _cores,
            _cache,
            _model,
            _memory,
        )
    ]


def _processor(_config: EngineConfig) -> Finding:
    best = usable_isas()[0]
    if best == BEST:
        return Finding("processor", "ok", f"runs the {best} kernels, the fastest")
    return Finding(
        "processor",
        "lost",
        f"runs the {best} kernels; the fastest need {BEST}",
        "speed: the same text comes in more time",
        f"a machine whose processor has {', '.join(sorted(NEEDED[BEST] - NEEDED[best]))}",
    )


def _compiler(config: EngineConfig) -> Finding:
    try:
        found = compiler()
    except NoKernelsError as error:
        return _no_kernels("compiler", config, error, "install gcc or clang, or name one in CC")
    return Finding("compiler", "ok", " ".join(found))


def _kernels(config: EngineConfig) -> Finding:
    if config.kernels == "torch":
        return Finding("kernels", "ok", 'torch\'s, as engine.kernels = "torch" asks')
    try:
        from engine.kernels.library import load

        load()
    except (NoKernelsError, ImportError) as error:
        return _no_kernels("kernels", config, error, "the message names what is missing")
    return Finding("kernels", "ok", f"compiled and loaded ({usable_isas()[0]})")


def _no_kernels(about: str, config: EngineConfig, error: Exception, mend: str) -> Finding:
    if config.kernels == "native":
        costs = 'engine.kernels = "native" asks for them: the engine does not start'
        return Finding(about, "broken", str(error), costs, mend)
    costs = "speed, int4 and int8 weights, and drafting heads: torch's kernels run instead"
    return Finding(about, "lost", str(error), costs, mend)


def _torch(_config: EngineConfig) -> Finding:
    try:
        import torch
        import transformers
    except (ImportError, OSError) as error:
        return Finding(
            "libraries",
            "broken",
            f"PyTorch or transformers does not load: {error}",
            "the engine does not start",
            "pip install 'wetink-gateway[engine]' (in a checkout: make setup)",
        )
    versions = f"PyTorch {torch.__version__}, transformers {transformers.__version__}"
    return Finding("libraries", "ok", versions)


def _device(config: EngineConfig) -> Finding:
    try:
        import torch

        from engine.devices import chosen_device, cuda_fault

        device = chosen_device(config.device, config.kernels)
    except ImportError:
        return Finding("device", "broken", "unknown without PyTorch", "the engine does not start")
    except EngineConfigError as error:
        return Finding(
            "device",
            "broken",
            error.message,
            "the engine does not start",
            'what the message says, or engine.device = "cpu"',
        )
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        name = torch.cuda.get_device_name(device)
        found = f"{device}: {name}, {free // MIB:,} of {total // MIB:,} MiB free"
        return Finding("device", "ok", f"{found}, CUDA {torch.version.cuda}")
    if config.device == "auto" and Path(NVIDIA_DEVICE).exists():
        return Finding(
            "device",
            "lost",
            f"the CPU, though there is a GPU: {cuda_fault() or 'kernels are asked for on the CPU'}",
            "speed",
            f"what it says, or engine.device = {str(device)!r} if that is meant",
        )
    return Finding("device", "ok", "the CPU")


def _cores(config: EngineConfig) -> Finding:
    cores = len(os.sched_getaffinity(0))
    if (config.threads or cores) > cores:
        return Finding(
            "cores",
            "lost",
            f"engine.threads is {config.threads}, on {cores} cores",
            "speed: threads wait for one another",
            f"engine.threads = {cores}, or leave it unset",
        )
    if cores == 1:
        return Finding(
            "cores",
            "lost",
            "one core",
            "steady delivery: engine and gateway take turns",
            "two cores or more",
        )
    return Finding("cores", "ok", f"{cores}, of which the engine uses {config.threads or cores}")


def _cache(_config: EngineConfig) -> Finding:
    folder = cache_folder()
    nearest = next(each for each in (folder, *folder.parents) if each.exists())
    if os.access(nearest, os.W_OK | os.X_OK):
        return Finding("cache", "ok", str(folder))
    return Finding(
        "cache",
        "broken",
        f"{folder} cannot be written",
        "neither kernels nor the embedded model can be kept",
        "let this user write there, or name another place in XDG_CACHE_HOME",
    )


def _model(config: EngineConfig) -> Finding:
    if config.model == EMBEDDED_MODEL:
        if embedded_folder().is_dir():
            return Finding("model", "ok", f"{EMBEDDED_MODEL}, in the cache")
        return Finding(
            "model",
            "lost",
            f"{EMBEDDED_MODEL} is not in the cache",
            "the first start fetches 93 MB and converts them",
            "wetink pull",
        )
    path = Path(config.model)
    if path.is_file() or (path / "config.json").is_file():
        return Finding("model", "ok", str(path))
    if path.is_absolute() or path.exists():
        return Finding(
            "model",
            "broken",
            f"{path} is neither a Hugging Face folder nor a GGUF file",
            "the engine does not start",
            "engine.model has to name one of them, or a model on the hub",
        )
    return Finding("model", "ok", f"{config.model}, from the hub: not looked at here")


def _memory(config: EngineConfig) -> Finding:
    needed = _weights_mib(config) + (config.kv_memory_mib or CPU_CACHE_MIB) + LIBRARIES_MIB
    free = _free_mib()
    if free is None:
        return Finding(
            "memory", "ok", f"about {needed:,} MiB are needed; how much is free is not known"
        )
    found = f"about {needed:,} MiB are needed, {free:,} MiB are free"
    if needed <= free:
        return Finding("memory", "ok", found)
    return Finding(
        "memory",
        "broken",
        found,
        "the engine would be killed while it loads, or swap",
        "a smaller engine.kv_memory_mib or model, or more memory",
    )


def _weights_mib(config: EngineConfig) -> int:
    """Size of the checkpoint's files; 0 where they are not here."""
    path = embedded_folder() if config.model == EMBEDDED_MODEL else Path(config.model)
    files = [path] if path.is_file() else path.glob("*.safetensors")
    return sum(file.stat().st_size for file in files) // MIB


def _free_mib() -> int | None:
    """What may still be taken: of the machine, and of the container. None where nobody says."""
    limits = [limit for limit in (_machine_mib(), _container_mib()) if limit is not None]
    return min(limits) if limits else None


def _machine_mib() -> int | None:
    for line in _text("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    return None


def _container_mib() -> int | None:
    """The whole of its limit: what is used of it already is mostly cache."""
    limits = [int(text) for path in CGROUP_LIMITS if (text := _text(path).strip()).isdecimal()]
    return min(limits) // MIB if limits else None


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m engine.doctor", description=__doc__)
    parser.add_argument("--config", default="{}", help="EngineConfig as JSON")
    findings = examine(decode_config(parser.parse_args().config))
    sys.stdout.write(msgspec.json.encode(findings).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
