"""What a speaker needs of a voice and of what its sound goes to."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

BYTES_PER_FRAME = 2
"""One channel of signed 16-bit samples, little-endian, everywhere."""


class Sound(NamedTuple):
    """A piece of speech. Once it was heard, the first `upto` code points of its text were."""

    pcm: bytes
    upto: int

    @property
    def frames(self) -> int:
        return len(self.pcm) // BYTES_PER_FRAME


class Voice(Protocol):
    @property
    def rate(self) -> int:
        """Frames per second."""
        ...

    def speak(self, text: str) -> Iterator[Sound]:
        """Says one sentence, piece by piece; the last piece's `upto` is all of it.

        Called in worker threads, for one sentence after another.
        """
        ...


class Sink(Protocol):
    """Where sound goes: a file, a loudspeaker, a telephone line."""

    @property
    def heard(self) -> int:
        """How many frames were heard up to now."""
        ...

    async def play(self, pcm: bytes) -> None:
        """Returns when all of it was heard. When it is cancelled nothing more is heard, and `heard`
        says how much was.
        """
        ...
