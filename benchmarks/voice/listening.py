"""One answer heard in one way: when it began to sound, and what of it had to be unsaid.

Nobody waits for the speech to pass: what a listener hears when is worked out from the moments when
sounds were ready and from how long they last.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import wetink
from gateway.policies.boundaries import sentence_finder
from protocol.events import Commit, Retract
from wetink.say import say
from wetink.say.sentences import Sentences
from wetink.say.speech import speech

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from wetink.say import EspeakVoice


class Heard(NamedTuple):
    first_audio_s: float
    """Since the request."""
    gaps_s: float
    """Silence in the middle, because the next sound was not ready."""
    words: int
    """Of the final text."""
    foreign: int
    """Words that were taken back after the voice had been given them, ..."""
    foreign_heard: int
    """... and of these, words that had begun to sound by then."""


class Loudspeaker:
    """Takes every sound at once and works out when it is heard."""

    def __init__(self) -> None:
        self.heard = 0
        self._rate = 1
        self.began_at: float | None = None
        self.free_at = 0.0
        self.gaps_s = 0.0

    def at_rate(self, rate: int) -> Loudspeaker:
        self._rate = rate
        return self

    def sound(self, frames: int) -> float:
        """The moment when this sound begins to be heard."""
        now = time.perf_counter()
        if self.began_at is None:
            self.began_at = self.free_at = now
        self.gaps_s += max(now - self.free_at, 0.0)
        begins = max(now, self.free_at)
        self.free_at = begins + frames / self._rate
        return begins

    async def play(self, pcm: bytes) -> None:
        if pcm:
            self.sound(len(pcm) // 2)
            self.heard += len(pcm) // 2


async def committed(
    begin: Callable[[str], wetink.Stream], policy: str, voice: EspeakVoice
) -> Heard:
    """As `wetink say` does it."""
    speaker = Loudspeaker().at_rate(voice.rate)
    asked_at = time.perf_counter()
    async with begin(policy) as story:
        said = await say(story, voice, speaker)
        final = story.view.committed
    assert said.text == final, "not the words of the final text"
    assert speaker.began_at is not None
    return Heard(speaker.began_at - asked_at, speaker.gaps_s, len(final.split()), 0, 0)


async def whole(begin: Callable[[str], wetink.Stream], voice: EspeakVoice) -> Heard:
    """The voice gets the first sentence when all of the text is there."""
    speaker = Loudspeaker().at_rate(voice.rate)
    asked_at = time.perf_counter()
    async with begin("hold") as story:
        text = "".join([piece async for piece in story.committed()])
    sentences = Sentences("en", wetink.OffsetUnit.CODEPOINT)
    for sentence in [*sentences.commit(0, 0, text), *sentences.end()]:
        for sound in voice.speak(speech(sentence.text)):
            await speaker.play(sound.pcm)
    assert speaker.began_at is not None
    return Heard(speaker.began_at - asked_at, speaker.gaps_s, len(text.split()), 0, 0)


class _Word(NamedTuple):
    ends: int
    """Offset in the text."""
    begins_at: float


class _Naive:
    """Gives the voice what is visible, drafted or not."""

    def __init__(self, voice: EspeakVoice, cut: Callable[[str], int]) -> None:
        self.speaker = Loudspeaker().at_rate(voice.rate)
        self.foreign = self.foreign_heard = 0
        self._voice = voice
        self._cut = cut
        self._given = 0
        self._words: list[_Word] = []

    def retracted(self, at: int) -> None:
        """A fair one: it takes back what has not begun to sound, and goes on in the right place."""
        now = time.perf_counter()
        while self._words and self._words[-1].ends > at:
            word = self._words.pop()
            self.foreign += 1
            self.foreign_heard += word.begins_at <= now
            self.speaker.free_at = max(min(self.speaker.free_at, word.begins_at), now)
        self._given = min(self._given, max((word.ends for word in self._words), default=0))

    def visible(self, text: str) -> None:
        self._say(text[self._given : self._given + self._cut(text[self._given :])])

    def finished(self, text: str) -> None:
        self._say(text[self._given :])

    def _say(self, piece: str) -> None:
        if not piece.strip():
            return
        begins = 0
        for sound in self._voice.speak(speech(piece)):
            begins_at = self.speaker.sound(sound.frames)
            if sound.upto == len(piece) or piece[sound.upto - 1].isspace():
                for word in piece[begins : sound.upto].split():
                    ends = self._given + piece.index(word, begins) + len(word)
                    self._words.append(_Word(ends, begins_at))
                begins = sound.upto
        self._given += len(piece)


def whole_words(text: str) -> int:
    return max((text.rfind(space) for space in " \n"), default=-1) + 1


whole_sentences = sentence_finder("en")
"""As the policy `chunk:sentence` finds them."""


async def tentative(
    begin: Callable[[str], wetink.Stream], voice: EspeakVoice, cut: Callable[[str], int]
) -> Heard:
    """Says what is visible under `retract` as soon as `cut` lets it."""
    naive = _Naive(voice, cut)
    asked_at = time.perf_counter()
    async with begin("retract") as story:
        async for event in story:
            match event:
                case Retract(at=at):
                    naive.retracted(at)
                case Commit(retract=retraction) if retraction is not None:
                    naive.retracted(retraction.at)
                case _:
                    pass
            naive.visible(story.text)
        final = story.view.committed
    naive.finished(final)
    speaker = naive.speaker
    assert speaker.began_at is not None
    first = speaker.began_at - asked_at
    return Heard(first, speaker.gaps_s, len(final.split()), naive.foreign, naive.foreign_heard)


def asking(url: str, **fields: Any) -> Callable[[str], wetink.Stream]:
    return lambda policy: wetink.stream(url, policy=policy, transport="ws", **fields)
