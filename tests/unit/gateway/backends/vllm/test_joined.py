from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.base import Drafted, Finished, PartBegins, TokenCounts, Verified
from gateway.backends.vllm.joined import JoinedStream
from protocol.events import FinishReason
from protocol.ledger import Ledger
from tests.unit.gateway.backends.vllm.telling import Telling, tellings, update

if TYPE_CHECKING:
    from gateway.backends.base import BackendEvent


class Reader:
    """Keeps a ledger of a stream: it refuses whatever breaks a promise about text."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.events: list[BackendEvent] = []

    def accept(self, event: BackendEvent) -> None:
        self.events.append(event)
        match event:
            case Verified():
                self.ledger.verify(event.text, event.tail, event.tokens, event.cause)
            case Drafted():
                self.ledger.draft(event.tail, event.tokens, event.cause)
            case Finished():
                assert self.ledger.current.tail == "" or event.reason == FinishReason.CANCELLED
            case _:
                pass

    @property
    def tail(self) -> str:
        return self.ledger.current.tail

    @property
    def text(self) -> str:
        return self.ledger.current.committed_text()


def joined(reader: Reader, *, stop: list[str] | None = None, wants: bool = True) -> JoinedStream:
    return JoinedStream(reader.accept, stop or [], want_drafts=wants)


@given(telling=tellings(), wants=st.booleans())
def test_stream_commits_what_http_brings_whatever_the_plugin_says(
    telling: Telling, wants: bool
) -> None:
    reader = Reader()
    stream = joined(reader, wants=wants)
    telling.play(lambda text: stream.accept(Verified(text)), lambda one: stream.hear("engine", one))
    stream.accept(Finished(FinishReason.LENGTH))
    assert reader.text == telling.text
    assert reader.tail == ""


@given(telling=tellings(), other=tellings())
def test_stream_commits_what_http_brings_when_the_plugin_tells_another_text(
    telling: Telling, other: Telling
) -> None:
    reader = Reader()
    stream = joined(reader)
    mixed = telling._replace(updates=other.updates)
    mixed.play(lambda text: stream.accept(Verified(text)), lambda one: stream.hear("engine", one))
    assert reader.text == telling.text


def test_stream_shows_drafts_with_their_tokens() -> None:
    reader = Reader()
    stream = joined(reader)
    stream.accept(Verified("The"))
    stream.hear("engine", update(0, "The", " cat"))
    assert reader.tail == " cat"
    assert len(reader.ledger.current.tokens(3, 7)) == 4


def test_stream_shows_no_drafts_to_nobody_and_takes_back_what_it_showed() -> None:
    reader = Reader()
    stream = joined(reader)
    stream.accept(Verified("The"))
    stream.hear("engine", update(0, "The", " cat"))
    stream.want_drafts(False)
    stream.hear("engine", update(3, " c", "ow moos"))
    assert reader.tail == " c"
    stream.want_drafts(True)
    stream.hear("engine", update(5, "ow", " moos"))
    assert reader.tail == " cow moos"


def test_stream_takes_nothing_from_a_second_engine() -> None:
    reader = Reader()
    stream = joined(reader)
    stream.accept(Verified("The"))
    stream.hear("one", update(0, "The", " cat"))
    stream.hear("two", update(0, "The", " cow"))
    assert reader.tail == " cat"


def test_stream_says_why_a_tail_went_that_held_a_stop_sequence() -> None:
    reader = Reader()
    stream = joined(reader, stop=["END"])
    stream.accept(Verified("one "))
    stream.hear("engine", update(0, "one two EN", "D three"))
    assert reader.tail == "two "
    stream.accept(Finished(FinishReason.STOP))
    assert reader.ledger.current.cause == "stop_sequence"


def test_stream_shows_no_drafts_once_a_parser_stands_between() -> None:
    reader = Reader()
    stream = joined(reader)
    stream.hear("engine", update(0, "<think>", "hm"))
    stream.accept(PartBegins("reasoning"))
    assert reader.tail == ""
    stream.hear("engine", update(7, "hm", " well"))
    assert reader.tail == ""
    assert not stream.is_believed


def test_stream_ends_with_the_counts_that_the_plugin_told() -> None:
    reader = Reader()
    stream = joined(reader)
    told = msgspec.structs.replace(update(0, "The"), drafted=8, accepted=5, steps=3)
    stream.hear("engine", told)
    stream.accept(Finished(FinishReason.STOP, TokenCounts(prompt=4, completion=9)))
    ended = reader.events[-1]
    assert isinstance(ended, Finished)
    assert ended.counts == TokenCounts(prompt=4, completion=9, drafted=8, accepted=5, steps=3)


def test_stream_says_nothing_of_an_update_that_changes_nothing() -> None:
    reader = Reader()
    stream = joined(reader)
    stream.accept(Verified("The"))
    stream.hear("engine", update(0, "The", " cat"))
    said = len(reader.events)
    stream.hear("engine", update(3, "", " cat"))
    assert len(reader.events) == said
