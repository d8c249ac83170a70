"""A real voice speaks what a real gateway says; what it said is held against the final text."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import wave
from typing import TYPE_CHECKING

import anyio
import pytest

import wetink
from gateway.backends.base import Drafted, Failed, Finished, Verified
from gateway.backends.scripted import BUILT_IN_TRACES, ScriptedBackend, load_traces
from tests.server.gateways import PATIENCE_S, hand_served, serving
from wetink import cli
from wetink.say import EspeakVoice, Said, WavFile, say
from wetink.say.speech import speech
from wetink.transports.websocket import WebSocketTransport

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from wetink.client import TransportName
    from wetink.say import Sound

BLOCK_S = 0.02
FIRST, SECOND, THIRD = "Dr. Smith left. ", "He paid 3.14 dollars. ", "Nobody saw it."


class Remembering:
    """The real voice, and what it was asked to say."""

    def __init__(self) -> None:
        self._voice = EspeakVoice("en", 450)
        self.rate = self._voice.rate
        self.said: list[str] = []

    def speak(self, text: str) -> Iterator[Sound]:
        self.said.append(text)
        return self._voice.speak(text)


class Overheard(WebSocketTransport):
    """The real transport, and what was acknowledged through it."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.acks: list[tuple[int, int]] = []

    async def acknowledge(self, stream: str, part: int, at: int) -> bool:
        self.acks.append((part, at))
        return await super().acknowledge(stream, part, at)


class Stuck:
    """A sink that has played what it got, and does not say so."""

    heard = 0

    async def play(self, pcm: bytes) -> None:
        self.heard += len(pcm) // 2
        await asyncio.Event().wait()


def frames_of(path: Path) -> int:
    with wave.open(str(path), "rb") as file:
        return file.getnframes()


@pytest.mark.parametrize("transport", ["sse", "ws"])
async def test_voice_says_no_word_that_the_final_text_lacks(
    transport: TransportName, tmp_path: Path
) -> None:
    """The trace drafts words that are taken back."""
    voice = Remembering()
    heard: list[str] = []
    traces = load_traces(BUILT_IN_TRACES)
    with WavFile(tmp_path / "a.wav", voice.rate) as wav:
        async with (
            serving(ScriptedBackend(traces, speed=4)) as (url, _),
            wetink.stream(
                url, prompt="x", model="talk", policy="chunk:sentence", transport=transport
            ) as story,
        ):
            said = await say(story, voice, wav, on_heard=heard.append)
            assert story.complete
            final = story.view.committed
    assert said == Said(final, interrupted=False)
    assert "".join(heard) == final
    assert "".join(voice.said) == speech(final)
    assert len(voice.said) > 2
    assert frames_of(tmp_path / "a.wav") == wav.heard > voice.rate


async def test_first_sentence_is_heard_before_the_second_is_there(tmp_path: Path) -> None:
    voice = Remembering()
    heard: asyncio.Queue[str] = asyncio.Queue()
    with WavFile(tmp_path / "a.wav", voice.rate) as wav:
        async with (
            asyncio.timeout(PATIENCE_S),
            hand_served() as served,
            wetink.stream(served.url, prompt="x", policy="chunk:sentence") as story,
            asyncio.TaskGroup() as tasks,
        ):
            saying = tasks.create_task(say(story, voice, wav, on_heard=heard.put_nowait))
            served.backend.say(
                Drafted("Dr. Smith stayed."), Verified(FIRST + "He paid", cause="draft_rejected")
            )
            words = ""
            while words != FIRST:
                words += await heard.get()
            assert story.view.committed == FIRST
            assert wav.heard
            served.backend.say(Verified((SECOND + THIRD).removeprefix("He paid")))
            served.backend.say(Finished("stop"))
    assert saying.result().text == FIRST + SECOND + THIRD
    assert voice.said == [FIRST, SECOND, THIRD]


async def test_interruption_leaves_exactly_what_was_heard(tmp_path: Path) -> None:
    voice = Remembering()
    heard: list[str] = []
    interruption = anyio.Event()
    heard_when_interrupted = 0

    with WavFile(tmp_path / "a.wav", voice.rate, in_real_time=True) as wav:

        def listen(words: str) -> None:
            nonlocal heard_when_interrupted
            heard.append(words)
            if "paid" in words:
                interruption.set()
                heard_when_interrupted = wav.heard

        async with (
            asyncio.timeout(PATIENCE_S),
            hand_served() as served,
            wetink.stream(
                served.url,
                prompt="x",
                policy="chunk:sentence",
                transport=(transport := Overheard(served.url)),
            ) as story,
        ):
            served.backend.say(Verified(FIRST + SECOND + "Nobody saw it. " * 5))
            said = await say(story, voice, wav, interruption=interruption, on_heard=listen)
            assert await served.backend.asked.get() == "cancel"
            ended = len(heard)
            rest = [event async for event in story]
            await transport.aclose()
    assert said == Said(FIRST + "He paid ", interrupted=True)
    assert "".join(heard) == said.text
    assert len(heard) == ended, "something was said after the interruption"
    assert transport.acks == [(0, len(FIRST)), (0, len(said.text))]
    assert isinstance(rest[-1], wetink.Finish)
    assert rest[-1].reason == "cancelled"
    assert wav.heard - heard_when_interrupted <= 2 * BLOCK_S * voice.rate
    assert frames_of(tmp_path / "a.wav") == wav.heard
    assert len(voice.said) <= 3, "the voice was more than one sentence ahead"


async def test_word_that_was_heard_counts_though_its_sink_was_cancelled() -> None:
    interruption = anyio.Event()
    sink = Stuck()
    async with (
        asyncio.timeout(PATIENCE_S),
        hand_served() as served,
        wetink.stream(served.url, prompt="x", policy="chunk:sentence") as story,
        asyncio.TaskGroup() as tasks,
    ):
        saying = tasks.create_task(say(story, Remembering(), sink, interruption=interruption))
        served.backend.say(Verified(FIRST + "He paid"))
        while not sink.heard:  # noqa: ASYNC110
            await asyncio.sleep(0)
        interruption.set()
    assert saying.result() == Said("Dr. ", interrupted=True)


async def test_server_is_told_what_was_heard_while_it_generates(tmp_path: Path) -> None:
    voice = Remembering()
    with WavFile(tmp_path / "a.wav", voice.rate) as wav:
        async with (
            asyncio.timeout(PATIENCE_S),
            hand_served() as served,
            wetink.stream(
                served.url,
                messages=[{"role": "user", "content": "x"}],
                policy="chunk:sentence",
                transport="ws",
                offsets="utf-16",
            ) as story,
            asyncio.TaskGroup() as tasks,
        ):
            heard = asyncio.Event()

            def listen(words: str) -> None:
                if "left" in words:
                    heard.set()

            saying = tasks.create_task(say(story, voice, wav, on_heard=listen))
            served.backend.say(Verified("<think>Well. Hm. </think>👩 left. He paid"))
            await heard.wait()
            acks = [None]
            while None in acks:
                snapshot = await served.snapshot(story.id)
                acks = [attachment["ack"] for attachment in snapshot["attachments"]]
            served.backend.say(Finished("stop"))
    assert acks == ["2.9"]  # a woman is two units
    assert saying.result().text == "👩 left. He paid"


async def test_text_before_a_failure_is_spoken_before_it_is_raised(tmp_path: Path) -> None:
    voice = Remembering()
    heard: list[str] = []
    with WavFile(tmp_path / "a.wav", voice.rate) as wav:
        async with (
            asyncio.timeout(PATIENCE_S),
            hand_served() as served,
            wetink.stream(served.url, prompt="x", policy="chunk:sentence") as story,
        ):
            served.backend.say(Verified(FIRST + "He paid"), Failed("engine_failed", "gone"))
            with pytest.raises(wetink.StreamFailed, match="engine_failed"):
                await say(story, voice, wav, on_heard=heard.append)
    assert "".join(heard) == FIRST + "He paid"


async def test_command_is_interrupted_and_its_file_holds_what_it_printed(tmp_path: Path) -> None:
    program = "import sys; from wetink.cli import main; sys.exit(main(sys.argv[1:]))"
    path = tmp_path / "a.wav"
    async with asyncio.timeout(PATIENCE_S), hand_served() as served:
        arguments = ["say", "Go on", "--url", served.url, "--wav", str(path), "--real-time"]
        command = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, *arguments, stdout=asyncio.subprocess.PIPE
        )
        assert command.stdout is not None
        await served.backend.admitted.get()
        served.backend.say(Verified(FIRST + SECOND + THIRD + " And"))
        printed = await command.stdout.read(len("Dr. "))
        command.send_signal(signal.SIGINT)
        printed += await command.stdout.read()
        assert await command.wait() == cli.EXIT_INTERRUPTED
    assert FIRST.startswith(printed.decode().removesuffix("\n"))
    assert 0 < frames_of(path) < 22050 * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--voice", "klingonese"], "no voice 'klingonese'"),
        (["--wav", "/nowhere/a.wav"], "No such file"),
        (["--url", "ftp://x"], "not an http(s) or ws(s) address"),
    ],
)
def test_command_says_what_is_wrong(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["say", "x", "--wav", str(tmp_path / "a.wav"), *arguments]) == cli.EXIT_USAGE
    assert message in capsys.readouterr().err


def test_command_without_its_extra_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['espeakng_loader'] = None; from wetink.cli import main;"
        "sys.exit(main(['say', 'x', '--wav', 'a.wav']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == cli.EXIT_USAGE
    assert done.stderr == "wetink: say needs a voice: pip install 'wetink[voice]'\n"
