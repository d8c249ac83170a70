from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from gateway.access import Allowance, Principal, Quota
from gateway.access.accounts import Account, AddressAccount
from gateway.access.keys import Scope
from gateway.access.principal import Holder
from gateway.backends.base import (
    BackendEvent,
    Drafted,
    Failed,
    Finished,
    PartBegins,
    TokenCounts,
    Verified,
)
from gateway.config import DeliveryConfig, LimitsConfig
from gateway.delivery import Connection
from gateway.streams import StreamRegistry
from protocol.errors import ErrorCode, RequestError
from protocol.events import Commit, Error, Finish, Open, Retract, Token
from protocol.ledger import Completed
from protocol.ledger import Failed as FailedEnding
from protocol.requests import GenerationRequest, Hold, PolicySpec, StreamRetract
from tests.unit.gateway.doubles import COUNTS, FakeClock, HandBackend

if TYPE_CHECKING:
    from gateway.delivery import Attachment
    from gateway.streams import Stream
    from protocol.events import IncludeItem

LIMITS = LimitsConfig(live_streams=3, kept_streams=2, attachments_per_stream=2)
DELIVERY = DeliveryConfig(grace_s=30.0, retention_s=300.0)


class Room:
    """A registry with its doubles."""

    def __init__(self, limits: LimitsConfig = LIMITS) -> None:
        self.clock = FakeClock()
        self.backend = HandBackend()
        self.owner = Principal.unbounded(self.clock.now)
        self.connection = Connection(self.clock, {}, self.owner)
        self.registry = StreamRegistry(
            self.backend, self.clock, epoch=7, limits=limits, delivery=DELIVERY
        )

    async def start(self, prompt: str = "hi") -> Stream:
        return await self.registry.start(
            GenerationRequest(prompt=prompt, model="hand", seed=1), self.owner
        )

    def read(self, stream: Stream, spec: PolicySpec | None = None) -> Attachment:
        return stream.attach(spec or Hold(), connection=self.connection)


@pytest.fixture
def room() -> Room:
    return Room()


async def test_stream_outlives_its_reader_for_the_grace_period(room: Room) -> None:
    stream = await room.start()
    room.read(stream).leave()
    room.clock.advance(29.9)
    assert room.backend.cancelled == []
    room.clock.advance(0.2)
    assert room.backend.cancelled == [stream.id]
    assert isinstance(stream.ledger.ending, Completed)
    assert stream.ledger.ending.reason == "cancelled"


async def test_stream_nobody_ever_read_is_cancelled_after_the_grace_period(room: Room) -> None:
    stream = await room.start()
    room.clock.advance(30.0)
    assert room.backend.cancelled == [stream.id]


async def test_stream_lives_on_when_a_reader_comes_within_the_grace_period(room: Room) -> None:
    stream = await room.start()
    room.clock.advance(20.0)
    first = room.read(stream)
    room.clock.advance(100.0)
    second = room.read(stream)
    first.leave()
    room.clock.advance(100.0)
    assert room.backend.cancelled == []
    second.leave()
    room.clock.advance(30.0)
    assert room.backend.cancelled == [stream.id]


async def test_stream_asks_for_drafts_while_somebody_shows_them(room: Room) -> None:
    stream = await room.start()
    room.read(stream, Hold())
    assert room.backend.drafts_wanted == []
    shows = room.read(stream, StreamRetract())
    assert room.backend.drafts_wanted == [(stream.id, True)]
    shows.leave()
    shows = room.read(stream, StreamRetract())
    shows.leave()
    shows.leave()
    assert [wanted for _, wanted in room.backend.drafts_wanted] == [True, False, True, False]


async def test_stream_that_begins_with_drafts_stops_them_for_a_reader_that_shows_none(
    room: Room,
) -> None:
    request = GenerationRequest(prompt="hi", model="hand", seed=1)
    stream = await room.registry.start(request, room.owner, want_drafts=True)
    assert room.backend.drafts_wanted == [(stream.id, True)]
    room.read(stream, StreamRetract()).leave()
    room.read(stream, Hold())
    assert [wanted for _, wanted in room.backend.drafts_wanted] == [True, False]


async def test_registry_takes_no_stream_once_its_door_is_closed_and_waits_for_those_inside(
    room: Room,
) -> None:
    await room.registry.idle()
    await room.start()
    room.registry.close_door()
    with pytest.raises(RequestError) as refused:
        await room.start()
    assert refused.value.code is ErrorCode.SHUTTING_DOWN
    idle = asyncio.create_task(room.registry.idle())
    await asyncio.sleep(0)
    assert not idle.done()
    room.backend.say(Verified("ab"), Finished("stop"))
    await asyncio.wait_for(idle, 5)


async def test_stream_cancelled_twice_is_cancelled_once(room: Room) -> None:
    stream = await room.start()
    room.backend.say(Verified("ab"), Drafted("cd"))
    reader = room.read(stream, StreamRetract())
    reader.collect()
    stream.cancel()
    stream.cancel()
    assert room.backend.cancelled == [stream.id]
    retract, finish = reader.collect()
    assert isinstance(retract, Retract)
    assert retract.cause == "cancelled"
    assert isinstance(finish, Finish)
    assert (finish.reason, finish.at) == ("cancelled", 2)


async def test_stream_reports_the_backends_counts(room: Room) -> None:
    stream = await room.start()
    reader = room.read(stream)
    room.backend.say(Verified("x"), Finished("stop", COUNTS))
    finish = reader.collect()[-1]
    assert isinstance(finish, Finish)
    assert (finish.usage.drafted_tokens, finish.usage.rejected_tokens) == (10, 4)
    assert finish.stats.tokens_per_step == 2.0


@pytest.mark.parametrize(
    "broken",
    [
        [Drafted("ab"), Drafted("xy")],
        [Drafted("ab"), PartBegins("text")],
        [Verified("\ud800")],
    ],
)
async def test_stream_is_given_up_when_the_backend_breaks_the_ledger(
    room: Room, broken: list[BackendEvent], caplog: pytest.LogCaptureFixture
) -> None:
    stream = await room.start()
    reader = room.read(stream)
    with caplog.at_level(logging.ERROR, "wetink.streams"):
        room.backend.say(Verified("ok"), *broken)
    assert "broke the ledger" in caplog.text
    assert room.backend.cancelled == [stream.id]
    *_, commit, error = reader.collect()
    assert isinstance(commit, Commit)
    assert isinstance(error, Error)
    assert (error.code, error.at, error.retryable) == ("engine_failed", 2, False)


async def test_stream_ignores_what_a_backend_says_after_the_end(room: Room) -> None:
    stream = await room.start()
    sink = stream.accept
    room.backend.say(Failed("engine_failed", "gone", retryable=True))
    sink(Verified("late"))
    assert stream.ledger.current.committed_length == 0
    assert stream.ledger.ending == FailedEnding("engine_failed", "gone", True)


async def test_stream_refuses_one_reader_too_many(room: Room) -> None:
    stream = await room.start()
    room.read(stream)
    room.read(stream)
    with pytest.raises(RequestError) as refused:
        room.read(stream)
    assert refused.value.code is ErrorCode.OVERLOADED


async def test_registry_refuses_one_stream_too_many_until_one_ends(room: Room) -> None:
    streams = [await room.start() for _ in range(3)]
    with pytest.raises(RequestError) as refused:
        await room.start()
    assert refused.value.code is ErrorCode.TOO_MANY_STREAMS
    room.backend.say(Finished("stop"), stream=streams[0].id)
    await room.start()
    assert room.registry.live == 3


async def test_registry_takes_no_slot_for_a_request_that_was_refused(room: Room) -> None:
    for _ in range(5):
        with pytest.raises(RequestError):
            await room.start("word " * 200)
    assert room.registry.live == 0


async def test_registry_forgets_a_finished_stream_after_its_retention(room: Room) -> None:
    stream = await room.start()
    room.backend.say(Verified("text"), Finished("stop"))
    room.clock.advance(299.0)
    assert room.registry.get(stream.id, room.owner) is stream
    room.clock.advance(1.0)
    with pytest.raises(RequestError) as refused:
        room.registry.get(stream.id, room.owner)
    assert refused.value.code is ErrorCode.STREAM_EXPIRED


async def test_registry_keeps_a_bounded_number_of_finished_streams(room: Room) -> None:
    ids: list[str] = []
    for _ in range(4):
        ids.append((await room.start()).id)
        room.backend.say(Finished("stop"))
    for expired in ids[:2]:
        with pytest.raises(RequestError):
            room.registry.get(expired, room.owner)
    assert [room.registry.get(kept, room.owner).id for kept in ids[2:]] == ids[2:]


async def test_registry_does_not_know_an_id_it_never_gave(room: Room) -> None:
    with pytest.raises(RequestError) as refused:
        room.registry.get("nobody", room.owner)
    assert refused.value.code is ErrorCode.UNKNOWN_STREAM


async def test_registry_ends_every_stream_when_it_shuts_down(room: Room) -> None:
    stream = await room.start()
    reader = room.read(stream, StreamRetract())
    room.backend.say(Verified("ab"), Drafted("cd"))
    room.registry.shut_down()
    events = reader.collect()
    assert isinstance(events[0], Open)
    error = events[-1]
    assert isinstance(error, Error)
    assert (error.code, error.retryable, error.at) == ("shutting_down", True, 2)
    with pytest.raises(RequestError) as refused:
        await room.start()
    assert refused.value.code is ErrorCode.SHUTTING_DOWN


async def test_finished_counts_default_to_nothing(room: Room) -> None:
    stream = await room.start()
    room.backend.say(Finished("stop", TokenCounts()))
    assert isinstance(stream.ledger.ending, Completed)
    assert stream.ledger.ending.usage.completion_tokens == 0


async def test_registry_keeps_a_bounded_number_of_bytes() -> None:
    limits = LimitsConfig(kept_bytes=3 * 10_000)
    room = Room(limits)
    ids: list[str] = []
    for _ in range(5):
        ids.append((await room.start()).id)
        room.backend.say(Verified("x" * 8_000), Finished("stop"))
    for expired in ids[:3]:
        with pytest.raises(RequestError) as refused:
            room.registry.get(expired, room.owner)
        assert refused.value.code is ErrorCode.STREAM_EXPIRED
    assert [room.registry.get(kept, room.owner).id for kept in ids[3:]] == ids[3:]
    room.clock.advance(300.0)
    for _ in range(2):  # what has expired takes no room
        ids.append((await room.start()).id)
        room.backend.say(Verified("x" * 8_000), Finished("stop"))
    assert [room.registry.get(kept, room.owner).id for kept in ids[5:]] == ids[5:]


@pytest.mark.parametrize("asked", ["request", "reader", "nobody"])
async def test_finished_stream_keeps_its_tokens_only_where_somebody_asked(
    room: Room, asked: str
) -> None:
    include: list[IncludeItem] = ["tokens"]
    request = GenerationRequest(
        prompt="hi", model="hand", include=include if asked == "request" else []
    )
    stream = await room.registry.start(request, room.owner)
    room.backend.say(Verified("ab", tokens=[Token(5, 2)]))
    reader = stream.attach(
        Hold(), connection=room.connection, include=include if asked == "reader" else []
    )
    room.backend.say(Finished("stop"))
    commit = reader.collect()[1]
    assert isinstance(commit, Commit)
    assert commit.tokens == ([Token(5, 2)] if asked == "reader" else None)
    kept = stream.ledger.current.tokens(0, 2)
    assert kept == ([] if asked == "nobody" else [(Token(5, 2), 2)])


async def test_registry_keeps_nothing_of_a_stream_that_was_discarded(room: Room) -> None:
    live, ended, kept = await room.start(), await room.start(), await room.start()
    room.backend.say(Finished("stop"), stream=kept.id)
    room.backend.say(Finished("stop"), stream=ended.id)
    room.registry.discard(live)
    room.registry.discard(ended)
    assert room.backend.cancelled == [live.id]
    for gone in (live, ended):
        with pytest.raises(RequestError):
            room.registry.get(gone.id, room.owner)
    assert room.registry.get(kept.id, room.owner) is kept


async def test_registry_gives_a_quota_back_when_its_stream_ends_or_is_refused(room: Room) -> None:
    quota = Quota(1, ErrorCode.TOO_MANY_STREAMS, "enough")
    full = Quota(0, ErrorCode.OVERLOADED, "full")
    request = GenerationRequest(prompt="hi", model="hand")
    with pytest.raises(RequestError, match="full"):
        await room.registry.start(request, room.owner, (quota, full))
    with pytest.raises(RequestError):
        await room.registry.start(
            GenerationRequest(prompt="w " * 200, model="hand"), room.owner, (quota,)
        )
    assert quota.taken == 0
    await room.registry.start(request, room.owner, (quota,))
    with pytest.raises(RequestError, match="enough"):
        await room.registry.start(request, room.owner, (quota,))
    room.backend.say(Finished("stop"))
    assert quota.taken == 0


async def test_start_that_waits_ends_at_once_when_its_key_is_revoked(room: Room) -> None:
    room.backend.most = 1
    running = await room.start()
    account = Account("this key", Allowance(), room.clock.now)
    holder = Principal(Holder("k", Scope(), account), AddressAccount(None, room.clock.now))
    request = GenerationRequest(prompt="hi", model="hand", seed=1)
    waiting = asyncio.create_task(room.registry.start(request, holder))
    await asyncio.sleep(0)
    assert room.registry.turns.waiting == 1
    room.registry.revoke(frozenset({"another"}))
    assert room.registry.turns.waiting == 1
    room.registry.revoke(frozenset({"k"}))
    with pytest.raises(RequestError, match="no longer let in") as caught:
        await asyncio.wait_for(waiting, 5)
    assert caught.value.code == ErrorCode.UNAUTHORIZED
    assert not running.ended
    assert (room.registry.live, room.registry.turns.waiting) == (1, 0)
