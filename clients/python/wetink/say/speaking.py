"""Speaks a stream while it is read: one task reads, one has the voice speak, one plays."""

from __future__ import annotations

import contextlib
import math
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import anyio
import anyio.to_thread

from protocol.errors import WetinkError
from protocol.events import Commit, PartKind
from wetink.say.narration import Narration
from wetink.say.sentences import Sentence
from wetink.say.speech import speech
from wetink.say.voice import Sound
from wetink.streams import GIVE_UP_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from wetink.say.narration import Place
    from wetink.say.voice import Sink, Voice
    from wetink.streams import Stream

SENTENCES_AT_ONCE = 2
"""One that is heard and one ahead, so that no gap is heard between them. Of more, the voice's work
would be lost on an interruption."""


class Said(NamedTuple):
    text: str
    """Exactly what was heard: a beginning of the committed text, in whole words."""
    interrupted: bool


def _nobody_listens(words: str) -> None:
    pass


async def say(
    stream: Stream,
    voice: Voice,
    sink: Sink,
    *,
    interruption: anyio.Event | None = None,
    locale: str = "en",
    on_heard: Callable[[str], None] = _nobody_listens,
) -> Said:
    """Speaks the committed text (not reasoning, not calls) of `stream`, which was entered and not
    read yet; ask for it with the policy `chunk:sentence`. `on_heard` is called with all words, in
    order, as they are heard.

    Once `interruption` is set the sink falls silent at once, the server hears up to where the text
    was spoken (`Stream.ack`; that needs transport "ws"), the generation is cancelled, and nothing
    more is said or read. Raises what the stream raises, after the text before that was spoken.
    """
    speaking = _Speaking(stream, voice, sink, locale, on_heard)
    interrupted = False

    async def interrupt(event: anyio.Event, scope: anyio.CancelScope) -> None:
        nonlocal interrupted
        await event.wait()
        interrupted = True
        scope.cancel()

    try:
        async with anyio.create_task_group() as tasks:
            if interruption is not None:
                tasks.start_soon(interrupt, interruption, tasks.cancel_scope)
            tasks.start_soon(speaking.read)
            tasks.start_soon(speaking.speak)
            await speaking.play()
            tasks.cancel_scope.cancel()
    finally:
        speaking.narration.interrupt()
        speaking.hear()
        with anyio.move_on_after(GIVE_UP_S, shield=True), contextlib.suppress(WetinkError):
            await speaking.acknowledge()
            if interrupted:
                await stream.cancel()
    if speaking.failure is not None and not interrupted:
        raise speaking.failure
    return Said(speaking.narration.heard, interrupted)


_Spoken: TypeAlias = tuple[Sentence, Sound | None]
"""A piece of a sentence; None at its end."""


class _Speaking:
    def __init__(
        self,
        stream: Stream,
        voice: Voice,
        sink: Sink,
        locale: str,
        on_heard: Callable[[str], None],
    ) -> None:
        self.narration = Narration(locale, stream.offsets)
        self.failure: WetinkError | None = None
        self._stream = stream
        self._voice = voice
        self._sink = sink
        self._on_heard = on_heard
        self._committed = anyio.Event()
        self._ahead = anyio.Semaphore(SENTENCES_AT_ONCE)
        # Holds the sounds of so many sentences at most.
        self._spoken, self._sounds = anyio.create_memory_object_stream[_Spoken](math.inf)
        self._acknowledged: Place | None = None

    async def read(self) -> None:
        try:
            async for event in self._stream:
                if isinstance(event, Commit) and self._stream.view.kind == PartKind.TEXT:
                    part = self._stream.view.parts[-1].index
                    self.narration.commit(part, event.at, event.text)
                    self._committed.set()
        except WetinkError as error:
            self.failure = error
        self.narration.end()
        self._committed.set()

    async def speak(self) -> None:
        with self._spoken:
            async for sentence in self._sentences():
                await self._ahead.acquire()
                sounds = self._voice.speak(speech(sentence.text))
                following = partial(next, sounds, None)
                while sound := await anyio.to_thread.run_sync(following, abandon_on_cancel=True):
                    self._spoken.send_nowait((sentence, sound))
                self._spoken.send_nowait((sentence, None))

    async def play(self) -> None:
        with self._sounds:
            async for sentence, sound in self._sounds:
                if sound is not None:
                    self.narration.play(sentence, sound)
                    await self._sink.play(sound.pcm)
                    self.hear()
                else:
                    self._ahead.release()
                    await self.acknowledge()

    def hear(self) -> None:
        words = self.narration.hear(self._sink.heard)
        if words:
            self._on_heard(words)

    async def acknowledge(self) -> None:
        place = self.narration.place
        if place is not None and place != self._acknowledged:
            self._acknowledged = place
            await self._stream.ack(place.at, place.part)

    async def _sentences(self) -> AsyncIterator[Sentence]:
        while True:
            sentence = self.narration.next()
            if sentence is not None:
                yield sentence
            elif self.narration.over:
                return
            else:
                self._committed = anyio.Event()
                await self._committed.wait()
