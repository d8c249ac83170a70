from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from gateway.backends.base import Drafted, Finished, PartBegins, Verified
from gateway.config import DeliveryConfig, LimitsConfig
from gateway.delivery import Connection
from gateway.streams import StreamRegistry
from protocol.errors import ErrorCode, RequestError
from protocol.events import Commit, Error, Finish, Heartbeat, OffsetUnit, Open, Tentative
from protocol.requests import Chunk, GenerationRequest, Hold, PolicySpec, StreamRetract
from tests.unit.gateway.doubles import FakeClock, HandBackend

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator

    from gateway.delivery import Attachment
    from gateway.streams import Stream

BUDGET = 1000


class Reading:
    """One stream, one connection, its doubles."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.backend = HandBackend()
        self.aborted = 0
        self.connection = Connection(
            self.clock, {"extensions": {"wetink.abort": {"abort": self._count_abort}}}
        )
        self.registry = StreamRegistry(
            self.backend,
            self.clock,
            epoch=7,
            limits=LimitsConfig(unsent_bytes=BUDGET),
            delivery=DeliveryConfig(heartbeat_s=15.0, stall_s=60.0),
        )

    async def start(self, spec: PolicySpec) -> tuple[Stream, Attachment]:
        request = GenerationRequest(prompt="hi", model="hand", seed=1)
        stream = await self.registry.start(request, self.connection.principal)
        attachment = stream.attach(spec, connection=self.connection)
        opened = await self.woken()
        assert isinstance(opened[0], Open)
        return stream, attachment

    async def woken(self) -> list[object]:
        """What the transport would send now; it must have been woken."""
        woken = await asyncio.wait_for(self.connection.woken(), timeout=5)
        return [event for reader in woken for event in reader.collect()]

    async def nobody_woke(self) -> bool:
        """Whether the transport would still be asleep. Must be true: it forgets who woke it."""
        transport = asyncio.create_task(self.connection.woken())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return transport.cancel()

    def begin_stuck_write(self) -> Coroutine[Any, Any, None]:
        """A write that is under way and does not end by itself."""

        async def never_taken() -> None:
            await Never()

        writing = self.connection.write(never_taken())
        writing.send(None)
        return writing

    def _count_abort(self) -> None:
        self.aborted += 1


class Never:
    """Awaited, it suspends once."""

    def __await__(self) -> Generator[None]:
        yield


@pytest.fixture
def reading() -> Reading:
    return Reading()


async def test_reader_gets_a_heartbeat_after_a_silence(reading: Reading) -> None:
    await reading.start(Hold())
    reading.clock.advance(14.9)
    assert await reading.nobody_woke()
    reading.clock.advance(0.1)
    assert await reading.woken() == [Heartbeat()]
    reading.clock.advance(15.0)
    assert await reading.woken() == [Heartbeat()]


async def test_reader_gets_no_heartbeat_while_text_comes(reading: Reading) -> None:
    await reading.start(Hold())
    for _ in range(4):
        reading.clock.advance(10.0)
        reading.backend.say(Verified("x"))
        (commit,) = await reading.woken()
        assert isinstance(commit, Commit)


async def test_reader_is_woken_when_the_policys_deadline_comes(reading: Reading) -> None:
    await reading.start(Chunk(unit="sentence", max_delay_ms=500))
    reading.backend.say(Verified("half a"))
    assert await reading.woken() == []
    reading.clock.advance(0.4)
    assert await reading.nobody_woke()
    reading.clock.advance(0.1)
    (commit,) = await reading.woken()
    assert isinstance(commit, Commit)
    assert commit.text == "half a"


async def test_slow_reader_gets_drafts_and_commits_merged(reading: Reading) -> None:
    await reading.start(StreamRetract())
    reading.backend.say(
        Drafted("never seen"),
        Verified("a", cause="draft_rejected"),
        Verified("b"),
        Drafted("c"),
    )
    commit, tentative = await reading.woken()
    assert isinstance(commit, Commit)
    assert (commit.text, commit.retract) == ("ab", None)
    assert isinstance(tentative, Tentative)
    assert tentative.text == "c"


async def test_reader_stuck_in_a_write_is_ended_over_its_byte_budget(reading: Reading) -> None:
    stream, attachment = await reading.start(Hold())
    reading.backend.say(Verified("x" * 100))
    await reading.woken()
    writing = reading.begin_stuck_write()
    reading.backend.say(Verified("é" * (BUDGET // 2)))
    assert not attachment.closed
    reading.backend.say(Verified("x"))
    finish_write(writing)
    (error,) = await reading.woken()
    assert isinstance(error, Error)
    assert (error.code, error.retryable, error.at) == ("slow_reader", True, 100)
    assert attachment.closed
    assert not stream.ended
    resumed = stream.attach(Hold(), connection=reading.connection, cursor=attachment.cursor)
    opened, commit = resumed.collect()
    assert isinstance(opened, Open)
    assert isinstance(commit, Commit)
    assert (opened.at, len(commit.text)) == (100, BUDGET // 2 + 1)


async def test_reader_whose_policy_withholds_text_is_not_slow(reading: Reading) -> None:
    _, attachment = await reading.start(Chunk(unit="paragraph"))
    for _ in range(30):
        reading.backend.say(Verified("x" * 100))
        assert await reading.woken() == []
    assert not attachment.closed


async def test_burst_is_no_fault_of_a_reader_who_is_not_stuck(reading: Reading) -> None:
    await reading.start(Hold())
    reading.backend.say(Verified("x" * BUDGET), Verified("y" * BUDGET), Finished("stop"))
    commit, finish = await reading.woken()
    assert isinstance(commit, Commit)
    assert isinstance(finish, Finish)


async def test_connection_is_cut_when_one_write_stalls(reading: Reading) -> None:
    await reading.start(Hold())
    reading.backend.say(Verified("x"))
    await reading.woken()
    writing = reading.begin_stuck_write()
    reading.clock.advance(59.9)
    assert reading.aborted == 0
    reading.clock.advance(0.1)
    assert reading.aborted == 1
    assert await reading.connection.woken() == []
    finish_write(writing)


async def test_connection_is_cut_when_the_last_write_stalls(reading: Reading) -> None:
    await reading.start(Hold())
    reading.backend.say(Verified("x"), Finished("stop"))
    await reading.woken()
    writing = reading.begin_stuck_write()
    reading.clock.advance(60.0)
    assert reading.aborted == 1
    finish_write(writing)


async def test_reader_who_left_is_sent_nothing_more(reading: Reading) -> None:
    _, attachment = await reading.start(Hold())
    reading.backend.say(Verified("x"))
    attachment.leave()
    assert await reading.woken() == []
    reading.clock.advance(20.0)
    assert await reading.nobody_woke()


async def test_reader_acknowledges_what_it_was_sent_and_no_more(reading: Reading) -> None:
    _, attachment = await reading.start(Hold())
    reading.backend.say(Verified("four"))
    await reading.woken()
    attachment.acknowledge(0, 3)
    attachment.acknowledge(0, 2)
    assert attachment.ack == (0, 3)
    reading.backend.say(PartBegins("reasoning"), Verified("x"))
    await reading.woken()
    for part, at in ((0, 5), (1, 2), (2, 0)):
        with pytest.raises(RequestError) as refused:
            attachment.acknowledge(part, at)
        assert (refused.value.code, refused.value.param) == (ErrorCode.INVALID_VALUE, "at")


def finish_write(writing: Coroutine[Any, Any, None]) -> None:
    """The stuck write ends after all."""
    with pytest.raises(StopIteration):
        writing.send(None)


@pytest.mark.parametrize(
    ("spec", "unit", "shared"),
    [
        (Hold(), OffsetUnit.CODEPOINT, True),
        (Hold(), OffsetUnit.UTF8, False),
        (StreamRetract(), OffsetUnit.CODEPOINT, False),
    ],
)
async def test_attachments_of_the_same_terms_are_given_the_same_events(
    reading: Reading, spec: PolicySpec, unit: OffsetUnit, shared: bool
) -> None:
    stream, attachment = await reading.start(Hold())
    other = stream.attach(spec, unit=unit, connection=reading.connection)
    other.collect()
    reading.backend.say(Verified("x"))
    events = attachment.collect()
    assert other.collect() == events
    reading.backend.say(Verified("y"))
    assert (attachment.collect() is other.collect()) is shared


async def test_attachments_with_the_same_budget_are_given_the_same_events(reading: Reading) -> None:
    stream, attachment = await reading.start(StreamRetract(budget=0.05))
    other = stream.attach(StreamRetract(budget=0.05), connection=reading.connection)
    attachment.collect()
    other.collect()
    reading.backend.say(Verified("x"))
    assert attachment.collect() is other.collect()
