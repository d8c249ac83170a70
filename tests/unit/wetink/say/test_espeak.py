from __future__ import annotations

import threading

import pytest

from wetink.errors import VoiceUnavailable
from wetink.say import EspeakVoice

SENTENCE = "Dr. Smith paid 3.14 dollars in 1984, naïve 👩. "


def test_voice_marks_its_words_and_says_all_of_the_sentence() -> None:
    voice = EspeakVoice("en")
    sounds = list(voice.speak(SENTENCE))
    begins = [SENTENCE[sound.upto :].split(" ")[0] for sound in sounds[:-1]]
    for word in ("Smith", "paid", "3.14", "dollars", "in", "1984,", "naïve"):
        assert word in begins
    assert sounds[-1].upto == len(SENTENCE)
    assert 3 < sum(sound.frames for sound in sounds) / voice.rate < 12
    assert any(sounds[0].pcm), "silence"


def test_voice_reads_numbers_and_abbreviations_by_itself() -> None:
    voice = EspeakVoice("en")

    def lasts(text: str) -> int:
        return sum(sound.frames for sound in voice.speak(text))

    assert lasts("21 men") == pytest.approx(lasts("twenty one men"), rel=0.2)
    assert lasts("Dr. Smith") == pytest.approx(lasts("doctor Smith"), rel=0.2)


def test_voices_in_several_threads_take_turns() -> None:
    words = {EspeakVoice("en", 100): "One two three four five.", EspeakVoice("de", 300): "Eins."}
    together: list[tuple[EspeakVoice, list[int]]] = []

    def speak(voice: EspeakVoice) -> None:
        together.append((voice, [sound.upto for sound in voice.speak(words[voice])]))

    threads = [threading.Thread(target=speak, args=(voice,)) for voice in [*words] * 8]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    slow = next(iter(words))
    assert len(together) == 16
    for voice, places in together:
        assert places == ([4, 8, 14, 19, 24] if voice is slow else [5])


def test_unknown_voice_is_refused() -> None:
    with pytest.raises(VoiceUnavailable, match="no voice 'klingonese'"):
        EspeakVoice("klingonese")
