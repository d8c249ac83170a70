from __future__ import annotations

import asyncio
import wave
from typing import TYPE_CHECKING

import pytest

from wetink.say import WavFile

if TYPE_CHECKING:
    from pathlib import Path

RATE = 8000
BLOCK_FRAMES = RATE // 50


def frames(path: Path) -> bytes:
    with wave.open(str(path), "rb") as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 1, 2)
        return file.readframes(file.getnframes())


async def test_file_holds_what_was_played(tmp_path: Path) -> None:
    pcm = bytes(range(250)) * 16
    with WavFile(tmp_path / "a.wav", RATE) as wav:
        await wav.play(pcm[:1000])
        await wav.play(b"")
        await wav.play(pcm[1000:])
        assert wav.heard == len(pcm) // 2
    assert frames(tmp_path / "a.wav") == pcm


async def test_file_in_real_time_takes_as_long_as_its_speech(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    with WavFile(tmp_path / "a.wav", RATE, in_real_time=True) as wav:
        begun = loop.time()
        await wav.play(bytes(2 * 2 * BLOCK_FRAMES))
        await wav.play(bytes(2 * BLOCK_FRAMES))
        assert loop.time() - begun >= 0.059


@pytest.mark.parametrize("in_real_time", [True, False])
async def test_file_holds_only_what_was_heard_when_it_is_stopped(
    tmp_path: Path, in_real_time: bool
) -> None:
    pcm = bytes([1, 0]) * (100 * BLOCK_FRAMES)
    with WavFile(tmp_path / "a.wav", RATE, in_real_time=in_real_time) as wav:
        playing = asyncio.create_task(wav.play(pcm))
        while not wav.heard:  # noqa: ASYNC110
            await asyncio.sleep(0)
        heard = wav.heard
        playing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await playing
        assert wav.heard <= heard + BLOCK_FRAMES
    assert frames(tmp_path / "a.wav") == pcm[: 2 * wav.heard]
