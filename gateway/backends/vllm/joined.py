"""One stream out of two tellings: HTTP's events, with the tail that the plugin's updates give."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

import msgspec

from gateway.backends.base import Drafted, Failed, Finished, PartBegins, Verified
from gateway.backends.vllm.joiner import Joiner, Tail
from protocol.events import Cause, FinishReason
from protocol.text import common_prefix_length

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.backends.base import BackendEvent, Sink, TokenCounts
    from gateway.backends.vllm.messages import Update


class JoinedStream:
    """`accept` is the sink of the HTTP side, `hear` the plugin's; `sink` gets the stream."""

    def __init__(self, sink: Sink, stop: Sequence[str], *, want_drafts: bool) -> None:
        self._sink = sink
        self._stop = stop
        self._joiner = Joiner(stop)
        self._wants_drafts = want_drafts
        self._told = ""
        """The tail as the sink was told last."""
        self._engine: str | None = None
        self._counts: Update | None = None

    @property
    def is_believed(self) -> bool:
        return self._joiner.is_believed

    def want_drafts(self, wanted: bool) -> None:
        self._wants_drafts = wanted

    def hear(self, engine: str, update: Update) -> None:
        """Of another engine than the first, nothing is taken: the request was asked anew there."""
        if self._engine is None:
            self._engine = engine
        if engine != self._engine:
            return
        self._joiner.hear(update)
        if self._joiner.is_believed:
            self._counts = update
        tail = self._shown()
        if tail.text != self._told:
            self._told = tail.text
            self._sink(Drafted(tail.text, list(tail.tokens), cause=Cause.DRAFT_REJECTED))

    def accept(self, event: BackendEvent) -> None:
        match event:
            case Verified():
                self._joiner.commit(event.text)
                self._told = self._told[len(event.text) :]  # what may still stand of it
                self._told = self._shown().text
                self._sink(
                    msgspec.structs.replace(event, tail=self._told, cause=Cause.DRAFT_REJECTED)
                )
            case PartBegins():
                # From here on vLLM's text is not its tokens' own: a parser stands between.
                self._drop(Cause.DRAFT_REJECTED)
                self._joiner.disbelieve()
                self._sink(event)
            case Finished(reason=reason, counts=counts):
                stopped = reason == FinishReason.STOP and bool(self._stop)
                if reason != FinishReason.CANCELLED:
                    self._drop(Cause.STOP_SEQUENCE if stopped else Cause.DRAFT_REJECTED)
                self._sink(msgspec.structs.replace(event, counts=self._with_drafts(counts)))
            case Failed():
                self._sink(event)
            case Drafted():
                self._sink(event)
            case _:
                assert_never(event)

    def _drop(self, cause: Cause) -> None:
        if self._told:
            self._told = ""
            self._sink(Drafted("", cause=cause))

    def _shown(self) -> Tail:
        """Where nobody wants drafts, only that is said of the tail what is gone of it."""
        tail = self._joiner.tail
        if self._wants_drafts:
            return tail
        return Tail(self._told[: common_prefix_length(self._told, tail.text)])

    def _with_drafts(self, counts: TokenCounts) -> TokenCounts:
        """As far as the plugin has told them; the last step's may be missing."""
        last = self._counts
        if last is None:
            return counts
        return msgspec.structs.replace(
            counts, drafted=last.drafted, accepted=last.accepted, steps=last.steps
        )
