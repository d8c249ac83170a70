"""Two tellings of one text, joined: vLLM's HTTP stream, and what its plugin publishes. No I/O.

What HTTP brings is committed, whatever the plugin says. What the plugin says *behind* that,
verified or drafted, is the tail. Either may be ahead of the other, and updates may be lost:

    committed  H  ████████████████▒▒▒▒▒▒▒▒▒        (HTTP is ahead: what the draft said is compared)
    verified   V  ████████████████
    draft      D                  ░░░░░░░░░░░░     the tail is what of D lies beyond H

    committed  H  ████████████████
    verified   V  ████████████████████████         (the plugin is ahead)
    draft      D                          ░░░░     the tail is the end of V, and D

An update says where its text begins, so a loss shows as a gap. The committed text closes it: until
it has got there, nothing is shown that nobody knows to follow. Where the two tell different texts
(a parser between vLLM's tokens and its HTTP stream, a request begun anew under the same name), the
plugin is not believed any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from protocol.events import Token

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.backends.vllm.messages import Update

MOST_AHEAD = 64 * 1024
"""Code points by which one side may be ahead; beyond that the other is taken for lost."""


class Tail(NamedTuple):
    text: str = ""
    tokens: tuple[Token, ...] = ()
    """That `text` is made of; none where part of it is verified already, or cut."""


NOTHING = Tail()


class Joiner:
    """`tail` is what may be shown behind the text committed so far."""

    def __init__(self, stop: Sequence[str] = ()) -> None:
        """`stop`: the request's stop strings. What a tail holds from one on would be taken back."""
        self._stop = stop
        self._committed = 0
        """Code points that HTTP has brought."""
        self._unheard = ""
        """The end of the committed text, which the plugin has not told yet."""
        self._untold = ""
        """Verified by the plugin, behind the committed text. Empty where `_unheard` is not."""
        self._beyond: Update | None = None
        """What came after a gap, until the committed text has closed it."""
        self._update: Update | None = None
        """The last one: its draft is the present one."""
        self._is_believed = True
        self.tail = NOTHING

    @property
    def is_believed(self) -> bool:
        """Whether the plugin's telling still fits."""
        return self._is_believed

    @property
    def last(self) -> Update | None:
        """The last update that was believed: it has the counts."""
        return self._update

    def commit(self, text: str) -> None:
        """HTTP has brought `text`."""
        self._committed += len(text)
        if self._is_believed:
            self._unheard += text
            self._settle()

    def hear(self, update: Update) -> None:
        """The plugin has published `update`."""
        if not self._is_believed:
            return
        heard = self._heard
        if self._beyond is not None:
            self._hear_beyond(self._beyond, update)
        elif update.at > heard:
            # Nobody knows what `_untold` was followed by, but it was verified and may stay.
            self._beyond = update
            self._update = None
        elif update.at < heard:
            self.disbelieve()  # something began anew under the same name
            return
        else:
            self._untold += update.text
            self._update = update
        self._settle()

    def disbelieve(self) -> None:
        """From here on, only what HTTP brings counts."""
        self._is_believed = False
        self._unheard = self._untold = ""
        self._beyond = self._update = None
        self.tail = NOTHING

    @property
    def _heard(self) -> int:
        """Code points of verified text that the plugin has told without a gap."""
        return self._committed - len(self._unheard) + len(self._untold)

    def _hear_beyond(self, before: Update, update: Update) -> None:
        if update.at < before.at + len(before.text):
            self.disbelieve()
        elif update.at == before.at + len(before.text):
            self._beyond = msgspec.structs.replace(
                update, at=before.at, text=before.text + update.text
            )
        else:
            self._beyond = update

    def _settle(self) -> None:
        """Compares what both have told, and works out the tail."""
        if not self._compare():
            return
        beyond = self._beyond
        if beyond is not None and self._committed >= beyond.at:
            # Only text is missing that has been committed: it need not be heard.
            self._unheard = self._unheard[beyond.at - self._heard :]
            self._untold, self._update, self._beyond = beyond.text, beyond, None
            if not self._compare():
                return
        if max(len(self._unheard), len(self._untold)) > MOST_AHEAD:
            self.disbelieve()
            return
        self.tail = self._known()

    def _compare(self) -> bool:
        """Whether the two told the same where both have told; that is forgotten."""
        both = min(len(self._unheard), len(self._untold))
        if self._unheard[:both] != self._untold[:both]:
            self.disbelieve()
            return False
        self._unheard, self._untold = self._unheard[both:], self._untold[both:]
        return True

    def _known(self) -> Tail:
        update = self._update
        if update is None:
            return Tail(self._until_stop(self._untold))
        if self._untold:
            return Tail(self._until_stop(self._untold + update.draft))
        ahead = self._unheard
        if not update.draft.startswith(ahead):
            return NOTHING
        text = update.draft[len(ahead) :]
        shown = self._until_stop(text)
        tokens = _tokens_behind(update, len(ahead)) if len(shown) == len(text) else ()
        return Tail(shown, tokens)

    def _until_stop(self, text: str) -> str:
        """vLLM holds back what may begin a stop string, so that one is whole in the tail."""
        ends = [at for string in self._stop if (at := text.find(string)) >= 0]
        return text[: min(ends)] if ends else text


def _tokens_behind(update: Update, ahead: int) -> tuple[Token, ...]:
    """The draft's tokens behind its first `ahead` code points; none where that is inside one."""
    pieces = list(update.pieces)
    while ahead > 0 and pieces:
        ahead -= pieces.pop(0).n
    if ahead != 0:
        return ()
    return tuple(Token(piece.id, piece.n, confidence=piece.confidence) for piece in pieces)
