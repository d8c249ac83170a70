"""One answer's text, as it is verified, taken apart: verified text in, parts out. No I/O.

Nothing is said twice and nothing is taken back: a call is announced when its name is known and is
that of a tool there is. What only looked like a call is text, down to the last character.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from gateway.parts.calls import Arguments, CallsReader, Ended, Named
from gateway.parts.dialect import THINK, THOUGHT
from protocol.events import PartKind

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from gateway.parts.dialect import Dialect

LONGEST_BLANK = 64
"""Code points of white space held at the beginning of an answer."""
PYTHON_TAG = "<|python_tag|>"
"""Llama 3 may write it in front of a call."""


class Begin(NamedTuple):
    """A part begins; what follows belongs to it."""

    kind: PartKind
    name: str | None = None


class Text(NamedTuple):
    text: str
    at: int | None
    """Where it stands in the text that was fed; None for arguments."""


Piece: TypeAlias = Begin | Text


class _Mode(Enum):
    FRESH = auto()
    """Nothing but white space so far: reasoning may begin."""
    TEXT = auto()
    REASONING = auto()
    CALLS = auto()


class Parser:
    """`feed` and, at the end, `finish` give the pieces in order, however the text is cut."""

    def __init__(self, dialect: Dialect, names: AbstractSet[str] = frozenset()) -> None:
        """`names`: of the tools that may be called; none: there are no calls."""
        self._names = names
        self._dialect = dialect
        self._calls = dialect.calls if names else None
        self._mode = _Mode.REASONING if dialect.thinks == "at once" else _Mode.FRESH
        self._kind = PartKind.TEXT
        self._skips_blank = self._mode is _Mode.REASONING
        """Between two parts white space is nobody's."""
        self._held = ""
        self._at = 0
        """Where `_held` begins in the text that was fed."""
        self._reader: CallsReader | None = None
        self._opened_at = 0
        self._opened = ""
        """The opener of the calls being read, and all behind it while none was named."""
        self._pieces: list[Piece] = []
        self.called = False
        """Whether a call was announced."""
        self.is_broken = False
        """Whether one was cut short."""

    def feed(self, text: str) -> list[Piece]:
        self._held += text
        while self._held and self._step():
            pass
        return self._taken()

    def finish(self) -> list[Piece]:
        """What was held back; nothing may be fed afterwards."""
        reader = self._reader
        if reader is not None and reader.is_open:
            self.is_broken = True
        elif reader is not None and not self._named_since_opening():
            self._say(PartKind.TEXT, self._opened, self._opened_at)
        elif reader is not None and reader.held.strip(" \n\t,;]"):
            self._say(PartKind.TEXT, reader.held, self._at - len(reader.held))
        kind = PartKind.REASONING if self._mode is _Mode.REASONING else PartKind.TEXT
        self._say(kind, self._held, self._at)
        self._held = ""
        return self._taken()

    def showable(self, tail: str) -> str:
        """As much of what may follow as certainly belongs to the present part."""
        if self._held or self._skips_blank or self._mode in (_Mode.CALLS, _Mode.FRESH):
            return ""
        marks = self._marks()
        ends = [place for mark in marks if (place := tail.find(mark[0])) >= 0]
        return tail[: min(ends)] if ends else tail

    def _step(self) -> bool:
        """Whether there may be more to do with what is held."""
        if self._skips_blank:
            rest = self._held.lstrip()
            self._drop(len(self._held) - len(rest))
            self._skips_blank = not rest
            if not rest:
                return False
        match self._mode:
            case _Mode.FRESH:
                return self._fresh()
            case _Mode.TEXT:
                return self._text(PartKind.TEXT)
            case _Mode.REASONING:
                return self._text(PartKind.REASONING)
            case _Mode.CALLS:
                return self._call()

    def _fresh(self) -> bool:
        rest = self._held.lstrip()
        openers = [THINK] if self._dialect.thinks != "never" else []
        if self._calls is not None and not self._calls.opener:
            openers += [PYTHON_TAG, "{"]
        for opener in openers:
            if rest.startswith(opener):
                self._drop(len(self._held) - len(rest))
                if opener == THINK:
                    self._drop(len(opener))
                    self._mode, self._skips_blank = _Mode.REASONING, True
                else:
                    self._open("" if opener == "{" else opener)
                return True
            if opener.startswith(rest) and len(self._held) <= LONGEST_BLANK:
                return False
        self._mode = _Mode.TEXT
        return True

    def _marks(self) -> list[str]:
        if self._mode is _Mode.REASONING:
            return [THOUGHT]
        calls = self._calls
        return [calls.opener] if calls is not None and calls.opener else []

    def _text(self, kind: PartKind) -> bool:
        for mark in self._marks():
            place = self._held.find(mark)
            if place >= 0:
                self._say(kind, self._held[:place], self._at)
                self._drop(place)
                if mark == THOUGHT:
                    self._drop(len(mark))
                    self._mode, self._skips_blank = _Mode.TEXT, True
                else:
                    self._open(mark)
                return True
            for length in range(min(len(mark) - 1, len(self._held)), 0, -1):
                if self._held.endswith(mark[:length]):
                    certain = len(self._held) - length
                    self._say(kind, self._held[:certain], self._at)
                    self._drop(certain)
                    return False
        self._say(kind, self._held, self._at)
        self._drop(len(self._held))
        return False

    def _open(self, opener: str) -> None:
        assert self._calls is not None
        self._mode = _Mode.CALLS
        self._opened_at, self._opened = self._at, opener
        self._drop(len(opener))
        self._reader = CallsReader(self._calls, self._names)

    def _call(self) -> bool:
        reader = self._reader
        assert reader is not None
        fed = self._held
        found = reader.feed(fed)
        self._drop(len(fed))
        if not self._named_since_opening():
            self._opened += fed
        for each in found:
            match each:
                case Named(name=name):
                    self._opened = ""
                    self.called = True
                    self._kind = PartKind.TOOL_CALL
                    self._pieces.append(Begin(PartKind.TOOL_CALL, name))
                case Arguments(text=text):
                    self._pieces.append(Text(text, None))
                case Ended(is_text=is_text):
                    self._close(reader, is_text=is_text)
        return bool(found) and self._mode is not _Mode.CALLS

    def _named_since_opening(self) -> bool:
        return not self._opened and self._reader is not None and self._reader.count > 0

    def _close(self, reader: CallsReader, *, is_text: bool) -> None:
        """Back to text, at what the reader has left."""
        named = reader.count > 0
        self._mode, self._reader = _Mode.TEXT, None
        self._at -= len(reader.held)
        self._held = reader.held
        if is_text and not named:
            opened, at = self._opened, self._opened_at
            said = opened[: len(opened) - len(reader.held)] or opened[:1]
            self._say(PartKind.TEXT, said, at)
            self._at = at + len(said)
            self._held = opened[len(said) :]
        else:
            self._skips_blank = True
        self._opened = ""

    def _say(self, kind: PartKind, text: str, at: int) -> None:
        if not text:
            return
        if self._kind != kind:
            self._kind = kind
            self._pieces.append(Begin(kind))
        self._pieces.append(Text(text, at))

    def _drop(self, count: int) -> None:
        self._held = self._held[count:]
        self._at += count

    def _taken(self) -> list[Piece]:
        pieces, self._pieces = self._pieces, []
        return pieces
