"""Draws a stream on a terminal: committed text once, the tail behind it, again and again.

The tail is drawn after the committed text and erased by moving back over it, with relative motions,
so that scrolling does no harm. That needs the cursor's place in cells. `_Pen` computes it and keeps
the terminal to it: every cluster whose width terminals disagree about (emoji sequences, combining
marks) is drawn with automatic wrapping off and followed by an absolute column.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from wcwidth import iter_graphemes, wcswidth, wcwidth

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_CSI = "\x1b["
_DIM = f"{_CSI}2m"
_STRUCK = f"{_CSI}0;9;31m"
_NOTICE = f"{_CSI}0;33m"
_STRUCK_PLAIN = f"{_CSI}0;9m"
_NOTICE_PLAIN = f"{_CSI}0;3m"
"""For who wants no colours (no-color.org)."""

_PLAIN = f"{_CSI}0m"
_ERASE_BELOW = f"{_CSI}J"
_WRAP_OFF = f"{_CSI}?7l"
_WRAP_ON = f"{_CSI}?7h"
_FORCE_WRAP = " \r"
"""In the margin: the space wraps, the carriage return goes back to where it was put."""

_TAB_STOP = 8
_FIRST_EMOJI = 0x1F000
_JOINER = "\u200d"
_LONGEST_CLUSTER = 64
"""Code points looked at to find a cluster's end. Longer ones exist in jokes only."""
_MIN_COLUMNS = 8
_CONTROL_PICTURES = 0x2400
_DELETE = 0x7F
_DELETE_PICTURE = "\u2421"
_FIRST_C1 = 0x80
_LAST_C1 = 0x9F


class _Cluster(NamedTuple):
    """A grapheme cluster as sent to the terminal, and its cells."""

    text: str
    width: int


_NOTHING = _Cluster("", 0)


class Size(NamedTuple):
    columns: int
    lines: int


class _Pen:
    """Where text goes: `row` counts down from the start; `column` == `columns` is the margin, where
    the next cell wraps first.
    """

    def __init__(self, column: int, columns: int, last: _Cluster = _NOTHING) -> None:
        self.row = 0
        self.column = column
        self.columns = columns
        self.last = last
        """The cluster before this place, on the same line."""

    def put(self, text: str) -> str:
        """Moves over `text`; returns what makes a terminal do the same."""
        return "".join(self._put(cluster) for cluster in iter_graphemes(text))

    def _put(self, cluster: str) -> str:
        if cluster in ("\n", "\r\n"):
            self.row += 1
            self.column = 0
            self.last = _NOTHING
            return "\r\n"
        if cluster == "\t":
            cells = min(_TAB_STOP - self.column % _TAB_STOP, max(self.columns - self.column, 1))
            return "".join(self._plain(" ", 1) for _ in range(cells))
        cluster = "".join(map(_visible, cluster))
        width = max(wcswidth(cluster), 0)
        if len(cluster) > 1 or width == 0 or ord(cluster) >= _FIRST_EMOJI:
            return self._disputed(cluster, width)
        return self._plain(cluster, width)

    def _plain(self, cluster: str, width: int) -> str:
        filler = ""
        if self.column + width > self.columns:
            filler = " " * (self.columns - self.column)
            self.row += 1
            self.column = 0
        self.column += width
        self.last = _Cluster(cluster, width)
        return filler + cluster

    def _disputed(self, cluster: str, width: int) -> str:
        """Never ends in the margin, where an absolute column could not say so."""
        if self.column == self.columns and width == 0:
            return ""  # some terminals would wrap for it, some would not
        filler = ""
        if self.column + width >= self.columns:
            filler = " " * (self.columns - self.column) + _FORCE_WRAP
            self.row += 1
            self.column = 0
        self.column += width
        text, cells = ("", 0) if width else self.last
        self.last = _Cluster(text + cluster, cells + width)
        return f"{filler}{_WRAP_OFF}{cluster}{_WRAP_ON}{_CSI}{self.column + 1}G"


class Painter:
    """`write` takes text for the terminal; `size` is asked before every drawing."""

    def __init__(
        self, write: Callable[[str], None], size: Callable[[], Size], *, in_color: bool = True
    ) -> None:
        self._struck = _STRUCK if in_color else _STRUCK_PLAIN
        self._notice = _NOTICE if in_color else _NOTICE_PLAIN
        self._write = write
        self._size = size
        self._columns: int = 0
        self._line = ""
        """Committed text since its last newline: what a resized terminal wraps anew."""
        self._column: int = 0
        self._last: _Cluster = _NOTHING
        self._tail = ""
        self._behind = ("", "")
        """Struck text and notice."""
        self._drawn: list[str] = []
        """The clusters that stand on the screen behind the committed text."""

    def update(self, committed: str, tail: str, struck: str = "", notice: str = "") -> None:
        """Adds `committed`, then shows `tail` dim, behind it `struck`, struck through, which stood
        there until it was taken back, and `notice`, which is no text of the stream.
        """
        behind = struck, notice
        if not committed and (tail, behind) == (self._tail, self._behind):
            return
        size = self._size()
        columns = max(size.columns, _MIN_COLUMNS)
        self._tail, self._behind = tail, behind
        sequence = self._erase(columns) + self._commit(committed, columns)
        styled = (_DIM, tail), (self._struck, struck), (self._notice, notice)
        self._write(sequence + self._draw(styled, columns, max(size.lines - 1, 1)))

    def close(self) -> None:
        """Leaves the committed text alone on the screen and the cursor on a line of its own."""
        self.update("", "")
        if self._column:
            self._write("\r\n")
            self._line, self._column = "", 0

    def _erase(self, columns: int) -> str:
        if columns != self._columns:
            self._columns = columns
            pen = _Pen(0, columns)
            pen.put(self._line)
            self._column, self._last = pen.column, pen.last
        if not self._drawn:
            return ""
        pen = _Pen(self._column, columns)
        for cluster in self._drawn:
            pen.put(cluster)
        self._drawn = []
        up = f"{_CSI}{pen.row}A" if pen.row else ""
        if self._column < columns:
            return f"{up}{_CSI}{self._column + 1}G{_ERASE_BELOW}"
        # A cursor motion never lands *in* the margin; writing the last cluster again does.
        last = self._last
        return f"{up}{_CSI}{columns - last.width + 1}G{_ERASE_BELOW}{last.text}"

    def _commit(self, text: str, columns: int) -> str:
        _, newline, rest = text.rpartition("\n")
        self._line = rest if newline else self._line + rest
        pen = _Pen(self._column, columns, self._last)
        back = ""
        if self._last.width and _joining(self._last.text, text):
            # The new text goes on with the last cluster: draw the two as the one they are.
            text = self._last.text + text
            pen = _Pen(self._column - self._last.width, columns)
            back = f"{_CSI}{pen.column + 1}G"
        sequence = pen.put(text)
        self._column, self._last = pen.column, pen.last
        return back + sequence

    def _draw(self, styled: Iterable[tuple[str, str]], columns: int, lines: int) -> str:
        """At most `lines` rows: what has scrolled off the screen can no longer be erased."""
        pen = _Pen(self._column, columns)
        sequence = ""
        for style, text in styled:
            drawn = ""
            for cluster in iter_graphemes(_drawable(self._last.text, text)):
                cells = pen.put(cluster)
                if pen.row >= lines:
                    return sequence + (f"{style}{drawn}{_PLAIN}" if drawn else "")
                self._drawn.append(cluster)
                drawn += cells
            if drawn:
                sequence += f"{style}{drawn}{_PLAIN}"
        return sequence


def _joining(last: str, text: str) -> str:
    """The beginning of `text` that belongs to the same cluster as `last`."""
    if not last or not text:
        return ""
    return next(iter(iter_graphemes(last + text[:_LONGEST_CLUSTER])))[len(last) :]


def _drawable(last: str, text: str) -> str:
    """Without what would stick to `last`, committed already, where no erasing reaches it."""
    if last.endswith(_JOINER):
        return ""
    start = len(_joining(last, text))
    while start < len(text) and text[start] not in "\n\t\r" and wcwidth(text[start]) == 0:
        start += 1
    return text[start:]


def _visible(character: str) -> str:
    """A model must not move the cursor: control characters are shown, not sent."""
    code = ord(character)
    if code < 0x20:
        return chr(_CONTROL_PICTURES + code)
    if code == _DELETE:
        return _DELETE_PICTURE
    if _FIRST_C1 <= code <= _LAST_C1:
        return f"<{code:02X}>"
    return character
