"""Drafted text against verified text: what of it stands. No I/O, no clock, no tokens' meaning.

The two texts come from models with different tokenizers, so they are compared as text. The tail is
always the drafted text beyond the verified one; what the upstream says is never touched.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from protocol.events import Token

if TYPE_CHECKING:
    from gateway.backends.ahead.calibration import Calibration


class Piece(NamedTuple):
    """A token of the draft model, or what the verified text has left of it."""

    id: int
    text: str
    claim: float
    """The draft model's probability of it."""


class Draft:
    """A draft at the end of one text. `begin` a run of it, `add` to it, `verify` it."""

    def __init__(self, calibration: Calibration) -> None:
        self._calibration = calibration
        self._pieces: deque[Piece] = deque()
        self._overtaken = ""
        """Verified text that the run under way has not come to yet."""
        self.drafted = 0
        """Tokens that were part of the tail; ..."""
        self.accepted = 0
        """... of these, how many the upstream has said too."""

    @property
    def tail(self) -> str:
        return "".join(piece.text for piece in self._pieces)

    @property
    def length(self) -> int:
        """Of the tail, in tokens."""
        return len(self._pieces)

    def tokens(self) -> list[Token]:
        """Those of the tail, with the chance that each stays if all before it do."""
        return [
            Token(piece.id, len(piece.text), None, self._calibration.chance(piece.claim))
            for piece in self._pieces
        ]

    def chance(self) -> float:
        """That the whole tail stays."""
        chance = 1.0
        for piece in self._pieces:
            chance *= self._calibration.chance(piece.claim)
        return chance

    def begin(self) -> None:
        """A run of the draft model begins behind the tail as it is."""
        self._overtaken = ""

    def drop(self) -> None:
        """Nothing is drafted any more; nothing is learnt from it."""
        self._pieces.clear()
        self._overtaken = ""

    def add(self, piece: Piece) -> bool:
        """The run goes on with `piece`. False: the upstream has said otherwise by now, and the run
        is of no use.
        """
        overtaken = self._overtaken
        if not overtaken:
            self._pieces.append(piece)
            self.drafted += 1
            return True
        if overtaken.startswith(piece.text):
            self._overtaken = overtaken[len(piece.text) :]
            self._calibration.observe(piece.claim, stayed=True)
            return True
        if not piece.text.startswith(overtaken):
            self._calibration.observe(piece.claim, stayed=False)
            self.drop()
            return False
        self._overtaken = ""
        self._pieces.append(piece._replace(text=piece.text[len(overtaken) :]))
        self.drafted += 1
        return True

    def verify(self, text: str) -> bool:
        """The upstream has said `text`. False: otherwise than drafted, and the draft is gone."""
        rest = text
        while rest and self._pieces:
            piece = self._pieces[0]
            if rest.startswith(piece.text):
                rest = rest[len(piece.text) :]
                self._pieces.popleft()
                self.accepted += bool(piece.text)
                self._calibration.observe(piece.claim, stayed=True)
            elif piece.text.startswith(rest):
                self._pieces[0] = piece._replace(text=piece.text[len(rest) :])
                return True
            else:
                self._calibration.observe(piece.claim, stayed=False)
                self.drop()
                return False
        self._overtaken += rest
        return True

    def end(self) -> None:
        """The text ends here: what was drafted beyond it is not said."""
        if self._pieces:
            self._calibration.observe(self._pieces[0].claim, stayed=False)
        self.drop()
