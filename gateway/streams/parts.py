"""From the text of a stream, as it is generated, to parts: answer, reasoning, calls of tools."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple, assert_never

import msgspec

from gateway.backends.base import Drafted, Failed, Finished, PartBegins, Verified
from gateway.parts import Begin, Text
from protocol.events import Cause, FinishReason, PartKind

if TYPE_CHECKING:
    from gateway.backends.base import BackendEvent, Sink
    from gateway.parts import Parser
    from protocol.events import Token


class _Placed(NamedTuple):
    token: Token
    at: int
    """Where its text begins in the text of the stream."""


class PartsReader:
    """A sink before a stream's own, which says what `parser` makes of the text.

    Of drafts it passes what certainly belongs to the present part, and of calls nothing that is not
    verified: one that is announced never turns into another. The tokens of text and reasoning pass
    with them, each once all its text does; those of calls and marks do not.
    """

    def __init__(self, sink: Sink, parser: Parser) -> None:
        self._sink = sink
        self._parser = parser
        self._tokens: deque[_Placed] = deque()
        self._length = 0
        """Code points of the text so far."""
        self._text = ""
        """Of the present part, not passed on yet: it ends within a token."""
        self._at = 0
        """Where that begins."""
        self._shown = ""
        """The tail as the sink knows it."""
        self._is_told_parts = False
        """By the backend itself."""
        self._kind = PartKind.TEXT
        self._reasoning = 0
        """Tokens with text in a part of reasoning."""

    def __call__(self, event: BackendEvent) -> None:
        if self._is_told_parts:
            self._sink(event)
            return
        match event:
            case Verified():
                self._verified(event)
            case Drafted():
                self._drafted(event)
            case Finished():
                self._finished(event)
            case PartBegins():
                self._is_told_parts = True
                self._sink(event)
            case Failed():
                self._sink(event)
            case _:
                assert_never(event)

    def _verified(self, event: Verified) -> None:
        for token in event.tokens:
            self._tokens.append(_Placed(token, self._length))
            self._length += token.n
        if not event.tokens:
            self._length += len(event.text)
        self._say(self._parser.feed(event.text), event.cause)
        tail = "" if self._text else self._parser.showable(event.tail)
        self._pass(tail, event.cause, ends=False)

    def _drafted(self, event: Drafted) -> None:
        tail = "" if self._text else self._parser.showable(event.tail)
        tokens: list[Token] = []
        covered = 0
        for token in event.tokens:
            if covered + token.n > len(tail):
                break
            covered += token.n
            tokens.append(token)
        if event.tokens:
            tail = tail[:covered]
        if tail == self._shown:
            return
        cause = None if tail.startswith(self._shown) else event.cause or Cause.DRAFT_REJECTED
        self._shown = tail
        self._sink(Drafted(tail, tokens, cause))

    def _finished(self, event: Finished) -> None:
        parser = self._parser
        self._say(parser.finish(), None)
        self._pass("", None, ends=True)
        if event.reason == FinishReason.STOP and parser.called and not parser.is_broken:
            event = msgspec.structs.replace(event, reason=FinishReason.TOOL_CALLS)
        if self._reasoning:
            counts = msgspec.structs.replace(event.counts, reasoning=self._reasoning)
            event = msgspec.structs.replace(event, counts=counts)
        self._sink(event)

    def _say(self, pieces: list[Begin | Text], cause: str | None) -> None:
        """The last text stays with `_text`, for what else the event brings."""
        for piece in pieces:
            match piece:
                case Begin(kind=kind, name=name):
                    self._pass("", cause, ends=True)
                    self._kind = kind
                    self._sink(PartBegins(kind, name))
                case Text(text=text, at=at) if at is not None:
                    if not self._text:
                        self._at = at
                    self._text += text
                case Text(text=text):
                    self._sink(Verified(text))

    def _pass(self, tail: str, cause: str | None, *, ends: bool) -> None:
        """As much of the text as whole tokens are made of; all of it, where the part ends."""
        tokens, length = self._covering(ends=ends)
        text, self._text = self._text[:length], self._text[length:]
        self._at += length
        if self._text:
            tail = ""
        if not text and tail == self._shown:
            return
        keeps = (text + tail).startswith(self._shown)
        self._shown = tail
        why = None if keeps else cause or Cause.DRAFT_REJECTED
        self._sink(Verified(text, tail, why, tokens))

    def _covering(self, *, ends: bool) -> tuple[list[Token], int]:
        """Tokens of the text's beginning, and how much of it they are."""
        if not self._tokens:
            return [], len(self._text)
        while (
            self._tokens
            and self._ends(self._tokens[0]) <= self._at
            and (self._tokens[0].token.n or self._tokens[0].at < self._at)
        ):
            self._tokens.popleft()
        end = self._at + len(self._text)
        tokens: list[Token] = []
        reached = self._at
        while self._tokens and self._tokens[0].at < end:
            token, at = self._tokens[0]
            stop = at + token.n
            if stop > end and not ends:
                break
            self._tokens.popleft()
            self._reasoning += self._kind == PartKind.REASONING
            cut = min(stop, end)
            tokens.append(msgspec.structs.replace(token, n=cut - reached))
            reached = cut
            if stop > end:
                rest = msgspec.structs.replace(token, n=stop - end)
                self._tokens.appendleft(_Placed(rest, end))
        return tokens, reached - self._at

    @staticmethod
    def _ends(placed: _Placed) -> int:
        return placed.at + placed.token.n
