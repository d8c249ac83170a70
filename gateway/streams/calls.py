"""From the text of a tool call, as it is generated, to a part of kind `tool_call`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, assert_never

from gateway.backends.base import Drafted, Failed, Finished, PartBegins, Verified
from protocol.events import FinishReason, PartKind

if TYPE_CHECKING:
    from gateway.backends.base import BackendEvent, Sink
    from protocol.events import Token

BEGINNING = '{"name": "'
_HEADER = re.compile(re.escape(BEGINNING) + r'([\w-]+)", "arguments": ')
LONGEST_HEADER = 128
"""Code points; names are shorter."""


class CallReader:
    """A sink before a stream's own: of `{"name": "f", "arguments": {…}}` it makes a part named `f`,
    whose text is the arguments.

    Nothing tentative passes: a call that is announced never turns into another one. Text that is no
    call, as of a backend that knows no grammars, passes as it is. Holds no more than a header.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._held = ""
        """Committed text not passed on: of the header, or what may be the call's last brace."""
        self._tokens: list[Token] = []
        """Of the header; dropped with it."""
        self._named = False
        self._plain = False

    def __call__(self, event: BackendEvent) -> None:
        if self._plain:
            self._sink(event)
            return
        match event:
            case Verified():
                self._verified(event)
            case Drafted():
                pass
            case Finished():
                self._finished(event)
            case PartBegins():
                # Of a backend that knows what a call is.
                self._plain = True
                self._sink(event)
            case Failed():
                self._sink(event)
            case _:
                assert_never(event)

    def _verified(self, event: Verified) -> None:
        self._held += event.text
        self._tokens += event.tokens
        if not self._named:
            header = _HEADER.match(self._held)
            if header is None:
                if self._is_no_call():
                    self._pass_plain(event)
                return
            self._named = True
            self._held = self._held[header.end() :]
            self._sink(PartBegins(PartKind.TOOL_CALL, header[1]))
        self._tokens = []
        passing = self._held.removesuffix("}")
        self._held = self._held[len(passing) :]
        if passing:
            self._sink(Verified(passing))

    def _finished(self, event: Finished) -> None:
        if not self._named:
            if self._held:
                self._sink(Verified(self._held, tokens=self._tokens))
            self._sink(event)
        elif event.reason == FinishReason.STOP:
            self._sink(Finished(FinishReason.TOOL_CALLS, event.counts))
        else:
            if self._held:
                self._sink(Verified(self._held))
            self._sink(event)

    def _is_no_call(self) -> bool:
        begins = self._held.startswith(BEGINNING[: len(self._held)])
        return not begins or len(self._held) > LONGEST_HEADER

    def _pass_plain(self, event: Verified) -> None:
        self._plain = True
        self._sink(Verified(self._held, event.tail, event.cause, self._tokens, event.counts))
