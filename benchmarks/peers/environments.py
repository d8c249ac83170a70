"""Virtual environments of the peers: made by the first run, and anew when their recipe changes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from benchmarks.peers.base import PeerError
from benchmarks.peers.processes import FOLDER, last_line

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"


class Recipe(NamedTuple):
    """What is installed where."""

    name: str
    install: tuple[str, ...]
    """Arguments of `pip install`."""
    uninstall: tuple[str, ...] = ()
    """What came along and is in the way."""
    environment: tuple[tuple[str, str], ...] = ()
    """Variables while installing."""
    duration: str = "some minutes"


class Environment:
    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self.folder = FOLDER / recipe.name
        self.python = self.folder / "bin" / "python"

    def ensure(self) -> None:
        """Raises PeerError."""
        stamp, wanted = self.folder / ".recipe", repr(self._recipe)
        if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
            return
        log = FOLDER / "logs" / f"install-{self._recipe.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        sys.stderr.write(
            f"installing {self._recipe.name}, once ({self._recipe.duration}; log: {log})\n"
        )
        self._build(log)
        stamp.write_text(wanted, encoding="utf-8")

    def _build(self, log: Path) -> None:
        pip = [str(self.python), "-m", "pip", "--disable-pip-version-check", "--no-input"]
        steps = [
            [sys.executable, "-m", "venv", "--clear", str(self.folder)],
            [*pip, "install", "--verbose", *self._recipe.install],
        ]
        if self._recipe.uninstall:
            steps.append([*pip, "uninstall", "--yes", *self._recipe.uninstall])
        environment = os.environ | dict(self._recipe.environment)
        environment.pop("PYTHONPATH", None)
        with log.open("wb") as output:
            for step in steps:
                done = subprocess.run(
                    step, stdout=output, stderr=subprocess.STDOUT, env=environment, check=False
                )
                if done.returncode:
                    raise PeerError(f"cannot be installed: {last_line(log)} (log: {log})")

    def site_packages(self) -> Path:
        return next((self.folder / "lib").glob("python*/site-packages"))

    def version(self, package: str) -> str:
        """Raises PeerError."""
        code = f"import importlib.metadata as m; print(m.version({package!r}))"
        done = subprocess.run(
            [self.python, "-I", "-c", code], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise PeerError(f"{package} is not installed in {self.folder}")
        return done.stdout.strip()
