"""A stream whose upstream was lost in the middle: what was told of it, and how it goes on.

Two ways: another upstream continues the text so far; or the same is asked again, with its seed, and
what it says is held against what was told before anything new of it is told. No I/O.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.backends.base import BackendEvent, Finished, PartBegins, Verified
from gateway.backends.openai.requests import Asked, continued

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.backends.openai.dialects import Dialect
    from gateway.config.upstreams import Continuation


class Part:
    """What was told of one part."""

    def __init__(self, begins: PartBegins | None) -> None:
        self.begins = begins
        """None: the one that every stream begins with."""
        self.pieces: list[str] = []

    @property
    def text(self) -> str:
        if len(self.pieces) > 1:
            self.pieces = ["".join(self.pieces)]
        return self.pieces[0] if self.pieces else ""


class Told:
    """Everything a stream has said so far."""

    def __init__(self) -> None:
        self.parts = [Part(None)]

    @property
    def is_empty(self) -> bool:
        return len(self.parts) == 1 and not self.parts[0].pieces

    @property
    def only_text(self) -> str | None:
        """Its text, if there is no part but the first."""
        return self.parts[0].text if len(self.parts) == 1 else None

    def add(self, event: BackendEvent) -> None:
        match event:
            case Verified(text=text):
                self.parts[-1].pieces.append(text)
            case PartBegins():
                self.parts.append(Part(event))
            case _:
                pass


class Mismatch(Exception):
    """What was said again is not what was told."""


class Comparison:
    """Holds an answer against what was told: lets pass what goes beyond it."""

    def __init__(self, told: Told) -> None:
        self._parts = [(part.begins, part.text) for part in told.parts]
        self._part = 0
        self._at = 0

    def pass_on(self, events: Sequence[BackendEvent]) -> list[BackendEvent]:
        """What of `events` is new. Raises Mismatch."""
        return [new for event in events if (new := self._new(event)) is not None]

    @property
    def _is_over(self) -> bool:
        """Everything that was told has been said again."""
        return self._part == len(self._parts) - 1 and self._at == len(self._parts[-1][1])

    def _new(self, event: BackendEvent) -> BackendEvent | None:
        if self._is_over:
            return event
        match event:
            case Verified(text=text):
                return self._compared(text)
            case PartBegins():
                self._next_part(event)
                return None
            case Finished():
                raise Mismatch("it ended earlier")
            case _:
                return event

    def _compared(self, text: str) -> Verified | None:
        told = self._parts[self._part][1]
        expected = told[self._at : self._at + len(text)]
        if not text.startswith(expected):
            raise Mismatch("it said something else")
        self._at += len(expected)
        if len(expected) == len(text):
            return None
        if not self._is_over:
            raise Mismatch("it said more")
        # Which tokens the rest is made of is not known: one may lie across the place.
        return Verified(text[len(expected) :])

    def _next_part(self, event: PartBegins) -> None:
        if self._at < len(self._parts[self._part][1]):
            raise Mismatch("a part ended earlier")
        if self._part + 1 == len(self._parts) or self._parts[self._part + 1][0] != event:
            raise Mismatch("another part began")
        self._part += 1
        self._at = 0


def way_on(
    ways: Sequence[Continuation],
    asked: Asked,
    dialect: Dialect,
    told: Told,
    tokens: int,
) -> tuple[Asked, Comparison | None] | None:
    """What to ask now, and what to hold the answer against; None where there is no way.

    `ways`: those that are allowed, the first that can be is taken; `tokens`: how many the text so
    far is made of.
    """
    if told.is_empty:
        return asked, None
    for way in ways:
        if way == "repeat" and "seed" in asked.body:
            return asked, Comparison(told)
        if way == "prefix" and told.only_text is not None:
            further = continued(asked, dialect, told.only_text, tokens)
            if further is not None:
                return further, None
    return None
