"""How a stream is shown: live on a terminal, as plain text for a pipe, as its events."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Protocol, TextIO, assert_never

from protocol.codec import encode_json
from protocol.events import (
    Commit,
    Error,
    Finish,
    Heartbeat,
    Open,
    Part,
    Retract,
    ServerEvent,
    Tentative,
)
from wetink.painter import Painter, Size

STRUCK_S = 0.12
"""How long text that was taken back stays where it stood: long enough to be noticed."""
LOST = "connection lost, resuming…"


class Screen(Protocol):
    def show(self, event: ServerEvent, tail: str) -> None:
        """`tail`: the tail after `event`."""
        ...

    def interrupted(self) -> None:
        """The connection is gone; an `open` follows if it comes back."""
        ...

    def close(self) -> None: ...


class _Plain:
    """Says on stderr what is not of the stream."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lost = False

    def interrupted(self) -> None:
        if not self._lost:
            say(f"wetink: {LOST}")
        self._lost = True

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()

    def _notice(self, event: ServerEvent) -> None:
        if self._lost and isinstance(event, Open):
            self._lost = False
            say("wetink: resumed")


class JSONLines(_Plain):
    """Every event as it came, one per line."""

    def show(self, event: ServerEvent, tail: str) -> None:
        self._notice(event)
        self._write(encode_json(event).decode() + "\n")

    def close(self) -> None:
        pass


class CommittedText(_Plain):
    """For pipes and files: the committed text and nothing else; its last line is ended."""

    def __init__(self, out: TextIO) -> None:
        super().__init__(out)
        self._last = "\n"

    def show(self, event: ServerEvent, tail: str) -> None:
        self._notice(event)
        if isinstance(event, Commit) and event.text:
            self._write(event.text)
            self._last = event.text[-1]

    def close(self) -> None:
        if self._last != "\n":
            self._write("\n")


class LiveScreen:
    """For terminals: committed text plain, the tail dim, and what was taken back struck through,
    for a moment, where it stood. What replaces it waits behind that moment; events do not.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._painter = Painter(self._write, self._size, in_color="NO_COLOR" not in os.environ)
        self._tail = ""
        self._owed = ""
        """Committed text that waits until the struck text is gone."""
        self._moment: asyncio.TimerHandle | None = None

    def show(self, event: ServerEvent, tail: str) -> None:
        match event:
            case Commit():
                text = event.text
                if event.retract is not None:
                    text = self._strike(event.retract.n, text)
                self._owed += text
            case Retract():
                self._strike(event.n)
            case Part():
                self._owed += f"\n[{event.kind}{f' {event.name}' if event.name else ''}]\n"
            case Open() | Tentative() | Finish() | Error() | Heartbeat():
                pass
            case _:
                assert_never(event)
        self._tail = tail
        if self._moment is None:
            self._paint()

    def interrupted(self) -> None:
        self._paint(f" [{LOST}]")

    def close(self) -> None:
        self._tail = ""
        self._paint()
        self._painter.close()

    def _strike(self, n: int, text: str = "") -> str:
        """`n` code points are gone from the end of the tail. Returns what of `text`, committed in
        the same breath, comes in their place.
        """
        if self._moment is not None:
            self._paint()
        kept = self._tail[: len(self._tail) - n]
        struck = self._tail[len(kept) :]
        self._painter.update(text[: len(kept)], kept[len(text) :], struck)
        self._moment = asyncio.get_running_loop().call_later(STRUCK_S, self._paint)
        return text[len(kept) :]

    def _paint(self, notice: str = "") -> None:
        """Everything as it is now; the moment for what was struck is over."""
        if self._moment is not None:
            self._moment.cancel()
            self._moment = None
        committed, self._owed = self._owed, ""
        self._painter.update(committed, self._tail, notice=notice)

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()

    def _size(self) -> Size:
        columns, lines = os.get_terminal_size(self._out.fileno())
        return Size(columns or 80, lines or 24)


def screen_for(out: TextIO, *, as_json: bool) -> Screen:
    if as_json:
        return JSONLines(out)
    if out.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        return LiveScreen(out)
    return CommittedText(out)


def say(line: str) -> None:
    sys.stderr.write(line + "\n")
