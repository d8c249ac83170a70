"""Speaks a stream while it is generated, and never has to take a word back.

    async with wetink.stream(url, prompt=…, policy="chunk:sentence", transport="ws") as story:
        said = await say(story, EspeakVoice("en"), WavFile(path, rate=22050))

Needs `pip install 'wetink[voice]'`.
"""

from wetink.say.espeak import EspeakVoice
from wetink.say.narration import Narration
from wetink.say.sentences import Sentence
from wetink.say.speaking import Said, say
from wetink.say.voice import Sink, Sound, Voice
from wetink.say.wav import WavFile

__all__ = [
    "EspeakVoice",
    "Narration",
    "Said",
    "Sentence",
    "Sink",
    "Sound",
    "Voice",
    "WavFile",
    "say",
]
