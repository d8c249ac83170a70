"""What `wetink stream` shows, event by event, read by a terminal emulator."""

from __future__ import annotations

import asyncio
import fcntl
import io
import os
import pty
import struct
import sys
import termios
from pathlib import Path
from typing import TYPE_CHECKING

import pyte
import pytest

from protocol.events import Commit, OffsetUnit, Open, Retract, Retraction, Tentative
from tests.unit.wetink.servers import canned, refusal
from wetink import terminal
from wetink.screens import LOST, CommittedText, JSONLines, LiveScreen

if TYPE_CHECKING:
    from collections.abc import Iterator

COLUMNS, LINES = 40, 6
OPEN = Open(
    v=1, epoch=7, model="m", policy={}, offsets=OffsetUnit.CODEPOINT, part=0, at=0, stream="s"
)


class Output(io.StringIO):
    """A terminal's size, and a screen for what is written."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self.screen = pyte.Screen(COLUMNS, LINES)
        self.changed = asyncio.Event()
        self._descriptor = descriptor
        self._stream = pyte.Stream(self.screen)

    def fileno(self) -> int:
        return self._descriptor

    def write(self, text: str, /) -> int:
        self._stream.feed(text)
        self.changed.set()
        return len(text)

    @property
    def shown(self) -> str:
        return self.screen.display[0].rstrip()

    @property
    def struck(self) -> str:
        row = self.screen.buffer[0]
        return "".join(row[x].data for x in range(COLUMNS) if row[x].strikethrough)


@pytest.fixture
def out() -> Iterator[Output]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    yield Output(theirs)
    os.close(ours)
    os.close(theirs)


def rejected(screen: LiveScreen) -> None:
    """ "brown fox" was drafted; "brown" is confirmed, " fox" becomes " cat", " sat" is drafted."""
    screen.show(Commit(at=0, text="The "), "")
    screen.show(Tentative(at=4, text="brown fox"), "brown fox")
    screen.show(Commit(at=4, text="brown cat", retract=Retraction(at=9, n=4, cause="rejected")), "")
    screen.show(Tentative(at=13, text=" sat"), " sat")


async def test_screen_strikes_taken_back_text_where_it_stood(out: Output) -> None:
    screen = LiveScreen(out)
    rejected(screen)
    assert (out.shown, out.struck) == ("The brown fox", " fox")
    screen.close()


async def test_screen_shows_what_replaces_struck_text_after_a_moment(out: Output) -> None:
    screen = LiveScreen(out)
    rejected(screen)
    out.changed.clear()
    async with asyncio.timeout(10):
        await out.changed.wait()
    assert (out.shown, out.struck) == ("The brown cat sat", "")
    screen.close()
    assert out.shown == "The brown cat"


async def test_screen_ends_one_moment_when_the_next_text_is_taken_back(out: Output) -> None:
    screen = LiveScreen(out)
    rejected(screen)
    screen.show(Retract(at=14, n=3, cause="rejected"), " ")
    assert (out.shown, out.struck) == ("The brown cat sat", "sat")
    screen.close()
    assert (out.shown, out.struck) == ("The brown cat", "")


async def test_screen_strikes_behind_a_prefix_that_stays_tentative(out: Output) -> None:
    screen = LiveScreen(out)
    screen.show(Tentative(at=0, text="one two three"), "one two three")
    screen.show(Commit(at=0, text="one", retract=Retraction(at=8, n=5, cause="rejected")), " two ")
    assert (out.shown, out.struck) == ("one two three", "three")
    screen.close()
    assert out.shown == "one"


async def test_screen_says_that_the_connection_is_lost_until_it_is_back(out: Output) -> None:
    screen = LiveScreen(out)
    screen.show(Commit(at=0, text="The "), "")
    screen.show(Tentative(at=4, text="fox"), "fox")
    screen.interrupted()
    assert out.shown == f"The fox [{LOST}]"
    screen.show(OPEN, "")
    assert out.shown == "The"
    screen.close()


@pytest.mark.parametrize("kind", [CommittedText, JSONLines])
def test_pipe_is_told_of_a_lost_connection_on_stderr(
    kind: type[CommittedText | JSONLines], capsys: pytest.CaptureFixture[str]
) -> None:
    out = io.StringIO()
    screen = kind(out)
    screen.show(OPEN, "")
    opened = out.getvalue()
    screen.interrupted()
    screen.interrupted()
    screen.show(OPEN, "")
    screen.close()
    assert capsys.readouterr().err == f"wetink: {LOST}\nwetink: resumed\n"
    assert out.getvalue() == opened * 2


@pytest.mark.parametrize(
    ("texts", "written"),
    [(["a", "b"], "ab\n"), (["a\n", ""], "a\n"), (["", "\nb"], "\nb\n"), ([], "")],
)
def test_pipe_ends_with_a_newline(texts: list[str], written: str) -> None:
    out = io.StringIO()
    screen = CommittedText(out)
    for text in texts:
        screen.show(Commit(at=0, text=text), "")
    screen.close()
    assert out.getvalue() == written


def test_help_says_defaults_and_what_the_summary_means(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit):
        terminal.main(["--help"])
    said = capsys.readouterr().out
    for words in (
        "--max-tokens N default: 256",
        "--temperature T 0: always the likeliest; default: the model's own",
        "TTFV: time to the first visible text",
        "TTC: time to the first committed text",
        "NE: normalised erasure",
    ):
        assert words in " ".join(said.split())


@pytest.mark.parametrize("key", [None, "wetink_wrong"])
async def test_terminal_says_how_to_give_a_key_where_none_was(key: str | None) -> None:
    wetink = Path(sys.executable).with_name("wetink")
    given = [] if key is None else ["--key", key]
    env = {name: value for name, value in os.environ.items() if name != "WETINK_KEY"}
    async with canned(refusal(401, "unauthorized")) as server:
        asking = await asyncio.create_subprocess_exec(
            wetink,
            "stream",
            "hi",
            "--url",
            server.url,
            *given,
            stderr=asyncio.subprocess.PIPE,
            env=env,
        )
        _, said = await asking.communicate()
    assert asking.returncode == 2
    assert (b"give one with --key or WETINK_KEY" in said) == (key is None)
