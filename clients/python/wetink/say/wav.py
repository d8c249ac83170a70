"""A WAV file as what is listened to."""

from __future__ import annotations

import math
import wave
from typing import TYPE_CHECKING, Self

import anyio
import anyio.lowlevel

from wetink.say.voice import BYTES_PER_FRAME

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

BLOCK_S = 0.02
"""What is heard at once; an interruption never comes later than this."""


class WavFile:
    """Holds exactly what was heard, one channel of 16-bit samples; a context manager.

    `in_real_time`: a listener needs as long as the speech lasts. Otherwise what is written counts
    as heard. Raises OSError where the file cannot be written.
    """

    def __init__(self, path: Path, rate: int, *, in_real_time: bool = False) -> None:
        self._rate = rate
        self._block = max(round(rate * BLOCK_S), 1) * BYTES_PER_FRAME
        self._in_real_time = in_real_time
        self._heard_until = -math.inf
        self.heard = 0
        # Both are closed by `close`.
        self._file = path.open("wb")
        self._wave = wave.open(self._file, "wb")  # noqa: SIM115
        self._wave.setnchannels(1)
        self._wave.setsampwidth(BYTES_PER_FRAME)
        self._wave.setframerate(rate)

    async def play(self, pcm: bytes) -> None:
        for begin in range(0, len(pcm), self._block):
            block = pcm[begin : begin + self._block]
            frames = len(block) // BYTES_PER_FRAME
            if self._in_real_time:
                self._heard_until = max(self._heard_until, anyio.current_time())
                self._heard_until += frames / self._rate
                await anyio.sleep_until(self._heard_until)
            else:
                await anyio.lowlevel.checkpoint()
            self._wave.writeframesraw(block)
            self.heard += frames

    def close(self) -> None:
        """Writes the length into the file's head. Idempotent."""
        self._wave.close()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
