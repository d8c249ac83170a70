"""The painter's output, read by a real terminal emulator (pyte)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyte
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from wcwidth import wcwidth

from wetink.painter import Painter, Size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyte.screens import Char

COLUMNS, LINES = 20, 6

TEXT = st.text(
    alphabet=st.sampled_from(
        [*"abc XYZ.\n\t", "漢", "字", "ü", "e\u0301"[1], "👩", "\u200d", "🚀", "م"]
    ),
    max_size=30,
)
STEPS = st.lists(
    st.tuples(st.text(st.sampled_from([*"ab \n漢e\u0301👩"]), max_size=25), TEXT, TEXT), max_size=6
)


class Terminal:
    """A pyte screen, and a painter that draws on it."""

    def __init__(self, columns: int = COLUMNS, lines: int = LINES) -> None:
        self.screen = pyte.HistoryScreen(columns, lines, history=1000, ratio=0.5)
        self.size = Size(columns, lines)
        self.stream = pyte.Stream(self.screen)
        self.painter = Painter(self.stream.feed, lambda: self.size)

    @property
    def rows(self) -> list[str]:
        """Every row ever, those scrolled off the top included, without trailing blanks."""
        above = [self._text(row) for row in self.screen.history.top]
        rows = [row.rstrip() for row in [*above, *self.screen.display]]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    def _text(self, row: Mapping[int, Char]) -> str:
        """As pyte's own `display`: the second cell of a wide character is not shown."""
        text, column = "", 0
        while column < self.screen.columns:
            text += row[column].data
            column += 2 if wcwidth(row[column].data[0]) == 2 else 1
        return text

    def style(self, row: int, column: int) -> tuple[bool, str]:
        cell = self.screen.buffer[row][column]
        return cell.strikethrough, cell.fg


def test_painter_shows_committed_and_tail_on_one_line() -> None:
    terminal = Terminal()
    terminal.painter.update("The quick ", "brown")
    assert terminal.rows == ["The quick brown"]


def test_painter_replaces_the_tail_when_it_is_rejected() -> None:
    terminal = Terminal()
    terminal.painter.update("The quick ", "brown fox")
    terminal.painter.update("red", "")
    assert terminal.rows == ["The quick red"]


def test_painter_erases_a_tail_that_wrapped_over_several_rows() -> None:
    terminal = Terminal()
    terminal.painter.update("0123456789", "a" * 45)
    assert terminal.rows == ["0123456789aaaaaaaaaa", "a" * 20, "a" * 15]
    terminal.painter.update("b", "")
    assert terminal.rows == ["0123456789b"]


def test_painter_erases_a_tail_that_scrolled_the_screen() -> None:
    terminal = Terminal()
    terminal.painter.update("\n" * (LINES - 1) + "last line ", "x" * 50)
    terminal.painter.update("stays", "")
    assert terminal.rows[-1] == "last line stays"
    assert not any("x" in row for row in terminal.rows)


def test_painter_never_draws_more_tail_than_the_screen_can_take_back() -> None:
    terminal = Terminal()
    terminal.painter.update("kept", "x" * (COLUMNS * LINES * 3))
    terminal.painter.update(" text", "")
    assert terminal.rows == ["kept text"]


def test_painter_keeps_the_last_cell_when_committed_text_ends_in_the_margin() -> None:
    terminal = Terminal()
    terminal.painter.update("x" * (COLUMNS - 1) + "E", "\ntail")
    terminal.painter.update("", "other")
    terminal.painter.update("f", "")
    assert terminal.rows == ["x" * (COLUMNS - 1) + "E", "f"]


def test_painter_wraps_a_wide_character_that_does_not_fit() -> None:
    terminal = Terminal()
    terminal.painter.update("x" * (COLUMNS - 1), "漢字")
    terminal.painter.update("漢", "")
    assert terminal.screen.buffer[1][0].data == "漢"
    assert terminal.screen.buffer[0][COLUMNS - 1].data == " "


def test_painter_shows_control_characters_instead_of_sending_them() -> None:
    terminal = Terminal()
    terminal.painter.update("a\x1b[2Jb\x07\x9b1mc\rd", "")
    assert terminal.rows == ["a␛[2Jb␇<9B>1mc␍d"]


def test_painter_strikes_taken_back_text_behind_what_stays_of_the_tail() -> None:
    terminal = Terminal()
    terminal.painter.update("ab", "xcd")
    terminal.painter.update("", "x", "cd")
    assert terminal.rows == ["abxcd"]
    assert terminal.style(0, 2) == (False, "default")
    assert terminal.style(0, 3) == (True, "red")
    terminal.painter.update("", "x")
    assert terminal.rows == ["abx"]


def test_painter_shows_a_notice_until_the_next_update() -> None:
    terminal = Terminal()
    terminal.painter.update("ab", "cd", notice=" [lost]")
    assert terminal.rows == ["abcd [lost]"]
    assert terminal.style(0, 5) == (False, "brown")
    terminal.painter.update("", "cd")
    assert terminal.rows == ["abcd"]


def test_painter_draws_the_tail_dim() -> None:
    written: list[str] = []
    Painter(written.append, lambda: Size(COLUMNS, LINES)).update("dry", "wet")
    assert "".join(written) == "dry\x1b[2mwet\x1b[0m"


def test_painter_holds_back_a_tail_that_would_stick_to_committed_text() -> None:
    terminal = Terminal()
    terminal.painter.update("e", "\u0301")
    terminal.painter.update("f", "")
    assert terminal.rows == ["ef"]


def test_painter_draws_an_emoji_sequence_whole_when_it_came_in_pieces() -> None:
    pieces, whole = Terminal(), Terminal()
    for piece in ("ab👨", "\u200d👩", "\u200d", "👧 c", "e", "\u0301f"):
        pieces.painter.update(piece, "👧tail", "gone")
    pieces.painter.close()
    whole.painter.update("ab👨\u200d👩\u200d👧 ce\u0301f", "")
    assert pieces.rows == whole.rows


@pytest.mark.parametrize(
    ("committed", "tail"),
    [("👨\u200d", "👩"), ("👨\u200d", "x"), ("🇩", "🇪"), ("e", "\u0301")],
    ids=["emoji sequence", "joiner", "flag", "accent"],
)
def test_painter_draws_no_tail_that_would_stick_to_committed_text(
    committed: str, tail: str
) -> None:
    written: list[str] = []
    painter = Painter(written.append, lambda: Size(COLUMNS, LINES))
    painter.update(committed, tail, tail)
    assert tail not in "".join(written)


def test_painter_follows_a_terminal_that_became_narrower() -> None:
    """A terminal that wraps anew on resize shows what a fresh one would."""
    narrow = Terminal(columns=10)
    narrow.stream.feed("0123456789ab" + "tail")
    narrow.size = Size(COLUMNS, LINES)
    silent: list[str] = []
    painter = Painter(silent.append, lambda: narrow.size)
    painter.update("0123456789ab", "tail")
    narrow.size = Size(10, LINES)
    silent.clear()
    painter.update("", "")
    narrow.stream.feed("".join(silent))
    assert narrow.rows == ["0123456789", "ab"]


def test_painter_leaves_the_cursor_on_a_line_of_its_own() -> None:
    terminal = Terminal()
    terminal.painter.update("done", "never")
    terminal.painter.close()
    assert terminal.rows == ["done"]
    assert (terminal.screen.cursor.y, terminal.screen.cursor.x) == (1, 0)


@settings(max_examples=50, deadline=None)
@given(STEPS)
@example([("x" * 19, "漢", ""), ("👩", "\u200d🚀", "")])
@example([("\n\u0301", "", ""), ("\u0301", "", "")])
@example([("", "\tXX字", "XXXX\t\u0301")])
@example([("a" * 20, "\n\nb", "c"), ("\u0301", "", "")])
def test_painter_leaves_what_committed_text_alone_would_leave(
    steps: list[tuple[str, str, str]],
) -> None:
    with_tails, at_once = Terminal(), Terminal()
    for committed, tail, struck in steps:
        with_tails.painter.update(committed, tail, struck)
    at_once.painter.update("".join(committed for committed, _, _ in steps), "")
    with_tails.painter.close()
    at_once.painter.close()
    assert with_tails.rows == at_once.rows


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.text("ab \n", max_size=25), st.text("xy z\n", max_size=60)), max_size=6)
)
def test_painter_leaves_what_a_terminal_makes_of_the_plain_text(
    steps: list[tuple[str, str]],
) -> None:
    terminal, plain = Terminal(), Terminal()
    for committed, tail in steps:
        terminal.painter.update(committed, tail)
        plain.stream.feed(committed.replace("\n", "\r\n"))
    terminal.painter.close()
    assert terminal.rows == plain.rows
