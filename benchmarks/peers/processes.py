"""Servers as child processes: started in a group of their own, and only that group is ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.peers.base import PeerError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LOOPBACK = "127.0.0.1"
FOLDER = Path(__file__).parent / ".envs"
"""Environments, logs and checkpoints of the peers; ignored by git."""
POLL_S = 0.02
END_S = 10.0
OK = 200
LOG_TAIL_BYTES = 4096


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]


def last_line(log: Path) -> str:
    """What a failed program said last, for a one-line reason."""
    lines = log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    return said[-1] if said else "it said nothing"


class Process:
    """One child with its output in a log file. `stop` may be called in any state, repeatedly."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.log = FOLDER / "logs" / f"{name}.log"
        self._child: subprocess.Popen[bytes] | None = None

    def launch(
        self, command: Sequence[str | Path], environment: Mapping[str, str], *, pipe: bool = False
    ) -> subprocess.Popen[bytes]:
        """Start `command` with `environment` added to ours; `pipe`: talk over stdin and stdout."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self._child = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.PIPE if pipe else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipe else log,
                stderr=log,
                env=os.environ | environment,
                start_new_session=True,
            )
        return self._child

    def wait_until_ok(self, port: int, path: str, timeout_s: float) -> None:
        """Until `path` answers 200. Raises PeerError."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self._child is None or self._child.poll() is not None:
                raise PeerError(f"ended while starting: {last_line(self.log)} (log: {self.log})")
            if _answers_ok(port, path):
                return
            time.sleep(POLL_S)
        raise PeerError(f"not ready after {timeout_s:.0f} s (log: {self.log})")

    def stop(self) -> None:
        """End the group this child leads, and nothing else."""
        child, self._child = self._child, None
        if child is None:
            return
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(END_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        with contextlib.suppress(ProcessLookupError):  # nothing was left behind
            os.killpg(child.pid, signal.SIGKILL)


def _answers_ok(port: int, path: str) -> bool:
    connection = HTTPConnection(LOOPBACK, port, timeout=END_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == OK
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
