"""Text that only grows, with cheap slices near its end, and the comparison of two texts.

A plain `str` would be copied whole on every append; a long stream would cost the square of its
length.
"""

from __future__ import annotations

from bisect import bisect_right
from sys import getsizeof

# Small enough that appending to the open block copies little, large enough that a whole stream is
# few blocks.
BLOCK_LENGTH = 1024


def common_prefix_length(told: str, canonical: str) -> int:
    """How many code points of `told` begin `canonical`; all of them is the usual case."""
    if canonical.startswith(told):
        return len(told)
    # Halving compares slices in C; one character after the other would be Python's work.
    same, differs = 0, min(len(told), len(canonical)) + 1
    while differs - same > 1:
        middle = (same + differs) // 2
        if canonical.startswith(told[same:middle], same):
            same = middle
        else:
            differs = middle
    return same


class AppendOnlyText:
    """Code points, appended at the end and never changed."""

    __slots__ = ("_blocks", "_open", "_open_start", "_starts", "length")

    def __init__(self, text: str = "") -> None:
        self._blocks: list[str] = []
        self._starts: list[int] = []
        self._open = ""
        self._open_start = 0
        self.length = 0
        self.append(text)

    def append(self, text: str) -> None:
        self._open += text
        self.length += len(text)
        if self.length - self._open_start >= BLOCK_LENGTH:
            self._blocks.append(self._open)
            self._starts.append(self._open_start)
            self._open = ""
            self._open_start = self.length

    def slice(self, start: int, stop: int) -> str:
        """Code points `start` to `stop`; both within the text, `start` <= `stop`."""
        if start >= self._open_start:
            return self._open[start - self._open_start : stop - self._open_start]
        first = bisect_right(self._starts, start) - 1
        last = bisect_right(self._starts, stop)
        pieces = self._blocks[first:last]
        if stop > self._open_start:
            pieces.append(self._open)
        base = self._starts[first]
        return "".join(pieces)[start - base : stop - base]

    @property
    def held_bytes(self) -> int:
        """Memory it takes."""
        return sum(map(getsizeof, (*self._blocks, self._open)))

    def __str__(self) -> str:
        return self.slice(0, self.length)
