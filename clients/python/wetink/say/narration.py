"""What is committed, what of it went to a voice, what of that was heard. No I/O.

    committed text → sentences → sounds → heard text

What was heard is always a beginning of the committed text, in whole words.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from protocol import units
from protocol.events import OffsetUnit
from wetink.say.sentences import Sentence, Sentences

if TYPE_CHECKING:
    from wetink.say.voice import Sound


class Place(NamedTuple):
    """An offset in the stream's unit, as `Stream.ack` takes it."""

    part: int
    at: int


class Narration:
    def __init__(self, locale: str = "en", unit: OffsetUnit = OffsetUnit.CODEPOINT) -> None:
        self._sentences = Sentences(locale, unit)
        self._length = units.length_in(unit)
        self._waiting: deque[Sentence] = deque()
        self._ended = False
        self._frames = 0
        self._spoken: Sentence | None = None
        self._marked = 0
        """Up to where the words of `_spoken` stand in `_words`."""
        self._words: deque[tuple[int, Place, str]] = deque()
        """Words that were played and not heard yet, with the frame they end at and the place they
        reach."""
        self._heard: list[str] = []
        self.place: Place | None = None
        """Up to where the text was heard; None while nothing was."""

    @property
    def heard(self) -> str:
        """The transcript."""
        return "".join(self._heard)

    @property
    def over(self) -> bool:
        """Whether nothing will ever be left to say."""
        return self._ended and not self._waiting

    def commit(self, part: int, at: int, text: str) -> None:
        if not self._ended:
            self._waiting.extend(self._sentences.commit(part, at, text))

    def end(self) -> None:
        """All of the text is here."""
        if not self._ended:
            self._waiting.extend(self._sentences.end())
            self._ended = True

    def interrupt(self) -> None:
        """Nothing more is to be said; what is under way may still be heard."""
        self._waiting.clear()
        self._ended = True

    def next(self) -> Sentence | None:
        """The next sentence to say; None while there is none."""
        return self._waiting.popleft() if self._waiting else None

    def play(self, sentence: Sentence, sound: Sound) -> None:
        """`sound` follows all that was played before."""
        if sentence is not self._spoken:
            self._spoken, self._marked = sentence, 0
        self._frames += sound.frames
        if sound.upto > self._marked and _is_word_end(sentence.text, sound.upto):
            at = sentence.at + self._length(sentence.text[: sound.upto])
            words = sentence.text[self._marked : sound.upto]
            self._words.append((self._frames, Place(sentence.part, at), words))
            self._marked = sound.upto

    def hear(self, frames: int) -> str:
        """All in all so many frames were heard by now. Returns the words that are new."""
        new: list[str] = []
        while self._words and self._words[0][0] <= frames:
            _, self.place, words = self._words.popleft()
            new.append(words)
        self._heard += new
        return "".join(new)


def _is_word_end(text: str, upto: int) -> bool:
    """A voice may mark its place inside a word (it says a number in several): that is no place to
    stop at.
    """
    return upto == len(text) or (0 < upto < len(text) and text[upto - 1].isspace())
