"""espeak-ng as a voice: small, quick, in a hundred languages, and it marks every word it says.

The library comes in the wheel `espeakng-loader`; this speaks to its C interface (espeak-ng's
`speak_lib.h`). It has one state for the whole process, so voices take turns.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from typing import TYPE_CHECKING, Any

import espeakng_loader  # pyright: ignore[reportMissingTypeStubs]

from wetink.errors import VoiceUnavailable
from wetink.say.voice import BYTES_PER_FRAME, Sound

if TYPE_CHECKING:
    from collections.abc import Iterator

_SYNCHRONOUS, _USUAL_BUFFER = 2, 0
_DONT_EXIT = 0x8000
"""Without it the library ends the process when it misses its data."""
_POSITION_CHARACTER, _CHARACTERS_UTF8 = 1, 1
_EVENTS_OVER, _EVENT_WORD = 0, 1
_RATE_PARAMETER = 1
USUAL_WORDS_PER_MINUTE = 175
SLOWEST, FASTEST = 80, 450
"""Words per minute that espeak-ng knows how to say."""


class _Name(ctypes.Union):
    _fields_ = [
        ("number", ctypes.c_int),
        ("name", ctypes.c_char_p),
        ("string", ctypes.c_char * 8),
    ]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),  # code points, from 1
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # milliseconds
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Name),
    ]


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


class _Library:
    """The loaded library; `lock` is held from the choice of a voice to the end of what it says."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._pcm = bytearray()
        self._words: list[tuple[int, int]] = []
        self._callback = _Callback(self._take)  # the library keeps no reference to it
        self._c: Any = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        self.rate: int = self._c.espeak_Initialize(_SYNCHRONOUS, _USUAL_BUFFER, data, _DONT_EXIT)
        if self.rate <= 0:
            raise VoiceUnavailable("espeak-ng does not start: its data cannot be read")
        self._c.espeak_SetSynthCallback(self._callback)

    def choose(self, name: str) -> bool:
        return self._c.espeak_SetVoiceByName(name.encode()) == 0

    def say(self, text: str, words_per_minute: int) -> tuple[bytes, list[tuple[int, int]]]:
        """The sound, and for each word (frame where it begins, code point where it begins)."""
        self._pcm.clear()
        self._words.clear()
        self._c.espeak_SetParameter(_RATE_PARAMETER, words_per_minute, 0)
        encoded = text.encode() + b"\0"
        status = self._c.espeak_Synth(
            encoded, len(encoded), 0, _POSITION_CHARACTER, 0, _CHARACTERS_UTF8, None, None
        )
        if status != 0:
            raise VoiceUnavailable(f"espeak-ng could not say a sentence (status {status})")
        return bytes(self._pcm), list(self._words)

    def _take(self, samples: Any, count: int, events: Any) -> int:
        if samples and count:
            self._pcm += ctypes.string_at(samples, count * BYTES_PER_FRAME)
        index = 0
        while (event := events[index]).type != _EVENTS_OVER:
            if event.type == _EVENT_WORD:
                self._words.append((event.sample, event.text_position - 1))
            index += 1
        return 0


_library = functools.cache(_Library)


class EspeakVoice:
    """`name` is a language ("en", "en-us", "pt-br") or one of espeak-ng's variants ("en+f3").

    Raises VoiceUnavailable for a voice that it does not have.
    """

    def __init__(self, name: str = "en", words_per_minute: int = USUAL_WORDS_PER_MINUTE) -> None:
        self._library = _library()
        self._name = name
        self._words_per_minute = min(max(words_per_minute, SLOWEST), FASTEST)
        with self._library.lock:
            if not self._library.choose(name):
                raise VoiceUnavailable(f"espeak-ng has no voice {name!r}")

    @property
    def rate(self) -> int:
        return self._library.rate

    def speak(self, text: str) -> Iterator[Sound]:
        with self._library.lock:
            self._library.choose(self._name)
            pcm, words = self._library.say(text, self._words_per_minute)
        begun = said = 0
        for frame, position in words:
            # Of a word that is said in several, each has a mark, not always in order.
            if frame > begun and position > said:
                yield Sound(pcm[begun * BYTES_PER_FRAME : frame * BYTES_PER_FRAME], position)
                begun, said = frame, position
        yield Sound(pcm[begun * BYTES_PER_FRAME :], len(text))
