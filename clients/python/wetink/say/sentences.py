"""Committed text, cut into what a voice says at once. No I/O.

A server that is asked for `chunk:sentence` cuts already. What is left to do: commits that were
merged for a slow reader hold several sentences, and one that came for its delay may end anywhere.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import sentencex  # pyright: ignore[reportMissingTypeStubs]

from protocol import units

if TYPE_CHECKING:
    from collections.abc import Callable

    from protocol.events import OffsetUnit

_segment: Callable[[str, str], list[str]] = cast("Any", sentencex).segment
_WIDE_SPACE = re.compile(r"[^\S\x00-\x7f]")
"""sentencex counts it as one byte, and panics."""
_WORDS_END = re.compile(r".*[\s。！？｡．]", re.DOTALL)
"""Up to where no later text can go on with the last word."""

_MAY_BE_OVER = re.compile(r"[.!?…][\"'”’»)\]*_]*\Z")


class Sentence(NamedTuple):
    """`text` stands at offset `at` of `part`, in the stream's unit."""

    part: int
    at: int
    text: str


class Sentences:
    """Whatever comes in leaves in order, whole and unchanged, at the latest with `end`."""

    def __init__(self, locale: str, unit: OffsetUnit) -> None:
        self._language = re.split(r"[-_]", locale, maxsplit=1)[0].lower()
        self._length = units.length_in(unit)
        self._part = -1
        self._at = 0
        self._rest = ""

    def commit(self, part: int, at: int, text: str) -> list[Sentence]:
        """Takes committed text and where it stands; returns the sentences that can be said now."""
        earlier: list[Sentence] = []
        if part != self._part:
            earlier = self.end()
            self._part, self._at = part, at
        self._rest += text
        return earlier + self._take(_sayable(self._rest, self._language))

    def end(self) -> list[Sentence]:
        """What is left of the part: nothing follows in it."""
        return self._take(len(self._rest))

    def _take(self, length: int) -> list[Sentence]:
        text, self._rest = self._rest[:length], self._rest[length:]
        taken: list[Sentence] = []
        for sentence in _cut(text, self._language):
            taken.append(Sentence(self._part, self._at, sentence))
            self._at += self._length(sentence)
        return taken


def _sayable(text: str, language: str) -> int:
    """How much can be said before more is known. Behind "It costs 3." may come "14", and then the
    sentence goes on; if nothing comes, it was whole.
    """
    over = _WORDS_END.match(text)
    if (over is None or over.end() < len(text)) and _MAY_BE_OVER.search(text):
        return len(text) - len(_cut(text, language)[-1])
    return 0 if over is None else over.end()


def _cut(text: str, language: str) -> list[str]:
    """White space that stands alone is left to the sentence before it."""
    try:
        pieces = _segment(language, _WIDE_SPACE.sub(" ", text))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # a panic in Rust is no Exception
        pieces = []
    if sum(map(len, pieces)) != len(text):
        pieces = [text]
    sentences: list[str] = []
    position = 0
    for length in map(len, pieces):
        piece = text[position : position + length]
        if sentences and not (piece.strip() and sentences[-1].strip()):
            sentences[-1] += piece
        elif piece:
            sentences.append(piece)
        position += length
    return sentences
