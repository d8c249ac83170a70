"""`/v1/streams` over real HTTP."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from gateway.backends.base import Drafted, Failed, Finished, PartBegins, Verified
from protocol.events import (
    Commit,
    Error,
    Finish,
    Heartbeat,
    OffsetUnit,
    Open,
    Part,
    Retract,
    Retraction,
    Tentative,
    Token,
)
from protocol.receiver import Receiver
from protocol.transitions import State
from tests.server.gateways import Framed, Reader
from tests.unit.gateway.doubles import COUNTS, SMALL_TALK, SMALL_TALK_TEXT

if TYPE_CHECKING:
    from tests.server.gateways import Served

POLICIES = ["hold", "retract", "retract:4", "chunk:sentence", "chunk:word", "ide", "chunk:token"]
EVENT_STREAM = {"Accept": "text/event-stream"}


def view_of(framed: list[Framed], unit: OffsetUnit = OffsetUnit.CODEPOINT) -> Receiver:
    """What a conforming reader makes of the events; it must not object to any."""
    reader = Receiver(unit)
    for event, _ in framed:
        reader.receive(event)
        assert reader.failure is None, reader.failure
    return reader


async def test_three_readers_with_three_policies_end_with_the_same_text(served: Served) -> None:
    stream = await served.start()
    async with (
        served.read(stream, policy="hold", offsets="utf-8") as holds,
        served.read(stream, policy="retract", offsets="utf-16") as retracts,
        served.read(stream, policy="chunk:sentence") as chunks,
    ):
        readers = [holds, retracts, chunks]
        got: list[list[Framed]] = [[await reader.next()] for reader in readers]
        for event in SMALL_TALK:
            served.backend.say(event)
            # Every step shows at once to the reader who is shown everything.
            got[1].append(await retracts.next())
        for framed, reader in zip(got, readers, strict=True):
            if not isinstance(framed[-1].event, Finish):
                framed += await reader.to_end()
    units = [OffsetUnit.UTF8, OffsetUnit.UTF16, OffsetUnit.CODEPOINT]
    views = [view_of(framed, unit) for framed, unit in zip(got, units, strict=True)]
    assert [view.committed for view in views] == [SMALL_TALK_TEXT] * 3
    assert {view.finish.digest for view in views if view.finish} == {
        hashlib.sha256(SMALL_TALK_TEXT.encode()).hexdigest()
    }
    kinds = [{type(event) for event, _ in framed} for framed in got]
    assert kinds[0] == {Open, Commit, Finish}
    assert Tentative in kinds[1]
    retractions = [event.retract for event, _ in got[1] if isinstance(event, Commit)]
    assert {gone.cause for gone in retractions if gone} == {"draft_rejected"}
    texts = [event.text for event, _ in got[2] if isinstance(event, Commit)]
    assert texts[0] == "Dr. Smith paid 3.14 dollars. "
    assert kinds[2] == {Open, Commit, Finish}


@pytest.mark.parametrize("policy", POLICIES)
async def test_reader_who_is_cut_off_at_any_event_resumes_with_nothing_lost_or_twice(
    served: Served, policy: str
) -> None:
    """By `?cursor=` and by `Last-Event-ID`, each time with another policy."""
    for cut in range(1, len(SMALL_TALK)):
        stream = await served.start()
        reader = Receiver()
        async with served.read(stream, policy=policy) as first:
            for event in SMALL_TALK[:cut]:
                served.backend.say(event)
                for framed in await served.all_owed_to(first):
                    reader.receive(framed.event)
        reader.interrupted()
        assert reader.failure is None
        cursor = reader.cursor
        assert cursor is not None
        served.backend.say(*SMALL_TALK[cut:])
        other = POLICIES[cut % len(POLICIES)]
        by_header = cut % 2 == 0
        resume = (
            served.read(stream, policy=other, cursor="0.0.0", last_event_id=cursor)
            if by_header
            else served.read(stream, policy=other, cursor=cursor)
        )
        async with resume as second:
            if second.response.status_code == 204:
                reader.nothing_more()
            else:
                for framed in await second.to_end():
                    reader.receive(framed.event)
        assert reader.failure is None, reader.failure
        assert reader.state is State.FINISHED
        assert reader.committed == SMALL_TALK_TEXT


async def test_starting_reader_gets_the_event_stream_itself(served: Served) -> None:
    request = {"prompt": "hi", "policy": "retract", "seed": 5}
    async with served.http.stream(
        "POST", "/v1/streams", json=request, headers=EVENT_STREAM
    ) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store, no-transform"
        assert response.headers["x-accel-buffering"] == "no"
        assert "content-encoding" not in response.headers
        reader = Reader(response)
        opened = (await reader.next()).event
        assert isinstance(opened, Open)
        assert (opened.seed, opened.model, opened.at) == (5, "hand", 0)
        assert opened.policy["kind"] == "retract"
        assert response.headers["content-location"] == f"/v1/streams/{opened.stream}"
        served.backend.say(*SMALL_TALK)
        view_of([Framed(opened, None), *await reader.to_end()])
    assert reader.raw.startswith(b"retry: 1000\n\n")
    assert reader.raw.count(b"retry:") == 1


async def test_server_draws_a_seed_and_reports_it(served: Served) -> None:
    seeds: set[int] = set()
    for _ in range(2):
        stream = await served.start()
        async with served.read(stream) as reader:
            opened = (await reader.next()).event
        assert isinstance(opened, Open)
        assert opened.seed is not None
        assert served.backend.requests[stream].seed == opened.seed
        seeds.add(opened.seed)
    assert len(seeds) == 2


async def test_created_stream_says_where_its_events_are(served: Served) -> None:
    answer = await served.http.post("/v1/streams", json={"prompt": "hi"})
    body = answer.json()
    assert answer.status_code == 201
    assert set(body) == {"stream", "epoch", "events"}
    assert answer.headers["location"] == f"/v1/streams/{body['stream']}"
    assert body["events"] == f"/v1/streams/{body['stream']}/events"


async def test_only_events_that_fix_the_watermark_carry_an_id(served: Served) -> None:
    stream = await served.start()
    async with served.read(stream, policy="retract") as reader:
        await reader.next()
        served.backend.say(Drafted("one two"))
        assert (await reader.next()).id is None
        served.backend.say(Verified("one", tail=" t", cause="draft_rejected"))
        commit = await reader.next()
        assert commit.event == Commit(
            at=0, text="one", retract=Retraction(at=5, n=2, cause="draft_rejected")
        )
        assert commit.id is not None
        assert commit.id.endswith(".0.3")
        served.backend.say(Drafted("", cause="engine_restart"))
        retracted = await reader.next()
        assert retracted == (Retract(at=3, n=2, cause="engine_restart"), None)


@pytest.mark.parametrize("reason", ["stop", "length", "cancelled"])
async def test_finished_stream_answers_204_only_to_a_reader_that_has_had_finish(
    served: Served, reason: str
) -> None:
    stream = await served.start()
    served.backend.say(Verified("all of it"), Finished(reason))
    async with served.read(stream) as reader:
        *_, commit, finish = await reader.to_end()
    assert commit.id is not None
    assert finish.id == f"{commit.id}.finish"
    # All of the text is not enough: whether it was cut short is in `finish` alone.
    async with served.read(stream, last_event_id=commit.id) as reader:
        assert reader.response.status_code == 200
        opened, again = [event for event, _ in await reader.to_end()]
    assert isinstance(opened, Open)
    assert isinstance(again, Finish)
    assert (again.reason, again.at) == (reason, 9)
    path = f"/v1/streams/{stream}/events"
    for resume in ({"headers": {"Last-Event-ID": finish.id}}, {"params": {"cursor": finish.id}}):
        answer = await served.http.get(path, **resume)  # pyright: ignore[reportArgumentType]
        assert (answer.status_code, answer.content) == (204, b"")


async def test_stream_cancelled_after_its_grace_period_tells_a_late_reader(served: Served) -> None:
    stream = await served.start()
    served.backend.say(Verified("half a sent"))
    async with served.read(stream) as reader:
        cursor = (await reader.events(2), reader.parser.last_event_id)[1]
    assert await served.backend.asked.get() == "drafts on"
    assert await served.backend.asked.get() == "drafts off"
    served.clock.advance(30.0)
    assert await served.backend.asked.get() == "cancel"
    async with served.read(stream, last_event_id=cursor) as reader:
        finish = (await reader.to_end())[-1].event
    assert isinstance(finish, Finish)
    assert finish.reason == "cancelled"


async def test_cursor_that_claims_a_finish_is_refused_while_the_stream_goes_on(
    served: Served,
) -> None:
    stream = await served.start()
    served.backend.say(Verified("ab"))
    shot = await served.snapshot(stream)
    answer = await served.http.get(
        f"/v1/streams/{stream}/events", params={"cursor": f"{shot['cursor']}.finish"}
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "cursor_ahead")


async def test_failed_stream_is_told_once_and_then_refused_with_its_status(served: Served) -> None:
    stream = await served.start()
    served.backend.say(Verified("half"), Failed("engine_failed", "gone", retryable=False))
    async with served.read(stream) as reader:
        *_, commit, last = await reader.to_end()
    error = last.event
    assert isinstance(error, Error)
    assert (error.code, error.at, error.retryable, error.ended) == ("engine_failed", 4, False, True)
    assert last.id == f"{commit.id}.error"
    async with served.read(stream, last_event_id=commit.id) as reader:
        again = (await reader.to_end())[-1]
    assert again == last
    path = f"/v1/streams/{stream}/events"
    answer = await served.http.get(path, headers={"Last-Event-ID": last.id or ""})
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "engine_failed"
    assert answer.json()["error"]["message"] == "gone"


async def test_policy_that_fails_ends_its_own_attachment_with_an_error(
    served: Served, failing_sentences: None
) -> None:
    stream = await served.start()
    async with (
        served.read(stream, policy="chunk:sentence") as fails,
        served.read(stream, policy="hold") as holds,
    ):
        await fails.next()
        await holds.next()
        served.backend.say(Verified("poison"))
        (last,) = await fails.to_end()
        assert isinstance(last.event, Error)
        assert (last.event.code, last.event.retryable, last.event.ended) == (
            "policy_failed",
            False,
            False,
        )
        assert (await holds.next()).event == Commit(at=0, text="poison")
        served.backend.say(Verified(" text"), Finished("stop"))
        assert isinstance((await holds.to_end())[-1].event, Finish)
    assert last.id is not None
    path = f"/v1/streams/{stream}/events"
    answer = await served.http.get(path, headers={"Last-Event-ID": last.id})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "policy_failed")
    cursor = last.id.removesuffix(".error")
    async with served.read(stream, policy="hold", cursor=cursor) as resumed:
        assert isinstance((await resumed.to_end())[-1].event, Finish)


async def test_text_that_sentencex_panics_at_is_read_in_sentences(served: Served) -> None:
    stream = await served.start()
    async with served.read(stream, policy="chunk:sentence") as reader:
        await reader.next()
        served.backend.say(Verified("Take Vitamin C\u00a0."))
        served.backend.say(Verified(" It helps. So"), Finished("stop"))
        texts = [event.text for event, _ in await reader.to_end() if isinstance(event, Commit)]
    assert "".join(texts) == "Take Vitamin C\u00a0. It helps. So"


async def test_editor_is_told_which_ghost_text_is_verified(served: Served) -> None:
    stream = await served.start()
    async with served.read(stream, policy="ide") as reader:
        await reader.next()
        served.backend.say(Verified("return x"), Drafted(" + 1"))
        found = (await reader.events(1))[0]
        while not (isinstance(found, Tentative) and found.text.endswith(" + 1")):
            found = (await reader.next()).event
        assert found.verified == 8


async def test_voice_is_told_that_the_last_chunk_of_a_cancelled_stream_is_no_sentence(
    served: Served,
) -> None:
    stream = await served.start()
    async with served.read(stream, policy="tts") as reader:
        served.backend.say(Verified("It is so. Then it"))
        await served.http.delete(f"/v1/streams/{stream}")
        commits = [event for event, _ in await reader.to_end() if isinstance(event, Commit)]
    assert [(each.text, each.cut_short) for each in commits] == [
        ("It is so. ", False),
        ("Then it", True),
    ]


async def test_reader_gets_a_heartbeat_without_an_id_after_15_seconds(served: Served) -> None:
    stream = await served.start()
    async with served.read(stream) as reader:
        await reader.next()
        served.clock.advance(15.0)
        assert await reader.next() == (Heartbeat(), None)


async def test_reader_gets_overdue_text_when_its_delay_is_over(served: Served) -> None:
    stream = await served.start()
    policy = '{"kind":"chunk","unit":"paragraph","max_delay_ms":300}'
    async with served.read(stream, policy=policy) as reader:
        await reader.next()
        served.backend.say(Verified("some words"))
        await served.snapshot(stream)
        served.clock.advance(0.3)
        assert (await reader.next()).event == Commit(at=0, text="some words")


async def test_cancel_is_idempotent_and_keeps_what_was_committed(served: Served) -> None:
    stream = await served.start()
    async with served.read(stream, policy="retract") as reader:
        served.backend.say(Verified("kept"), Drafted(" not kept"))
        for _ in range(3):
            answer = await served.http.delete(f"/v1/streams/{stream}")
            assert (answer.status_code, answer.content) == (204, b"")
        framed = await reader.to_end()
    finish = framed[-1].event
    assert isinstance(finish, Finish)
    assert (finish.reason, finish.at) == ("cancelled", 4)
    assert view_of(framed).committed == "kept"
    assert served.backend.cancelled == [stream]


async def test_stream_is_cancelled_when_its_lost_reader_stays_away(served: Served) -> None:
    stream = await served.start()
    async with served.read(stream, policy="retract") as reader:
        await reader.next()
        assert await served.backend.asked.get() == "drafts on"
    assert await served.backend.asked.get() == "drafts off"
    served.clock.advance(29.0)
    assert (await served.snapshot(stream))["state"] == "running"
    served.clock.advance(1.0)
    assert await served.backend.asked.get() == "cancel"
    assert (await served.snapshot(stream))["finish"]["reason"] == "cancelled"


async def test_snapshot_shows_parts_tail_and_attachments(served: Served) -> None:
    stream = await served.start(seed=3)
    async with served.read(stream, policy="ide", offsets="utf-16") as reader:
        await reader.next()
        served.backend.say(Verified("think\n"), PartBegins("tool_call", "search"))
        served.backend.say(Verified("{"), Drafted("}"))
        await reader.events(3)
        shot = await served.snapshot(stream)
        assert (shot["state"], shot["seed"], shot["model"]) == ("running", 3, "hand")
        assert [part["committed"] for part in shot["parts"]] == ["think\n", "{"]
        assert [part["complete"] for part in shot["parts"]] == [True, False]
        assert (shot["parts"][1]["name"], shot["parts"][1]["tail"]) == ("search", "}")
        assert shot["cursor"].endswith(".1.1")
        (described,) = shot["attachments"]
        assert (described["offsets"], described["policy"]["unit"]) == ("utf-16", "line")
        served.backend.say(Verified("}"), Finished("tool_calls", COUNTS))
        await reader.to_end()
    shot = await served.snapshot(stream)
    assert (shot["state"], shot["finish"]["reason"]) == ("finished", "tool_calls")
    assert shot["finish"]["usage"]["accepted_tokens"] == 6


async def test_tool_call_arguments_are_held_whatever_the_policy(served: Served) -> None:
    stream = await served.start()
    async with served.read(stream, policy="retract") as reader:
        await reader.next()
        served.backend.say(PartBegins("tool_call", "search"), Drafted('{"q":1}'))
        assert (await reader.next()).event == Part(part=1, kind="tool_call", name="search")
        served.backend.say(Verified('{"q":2}', cause="draft_rejected"))
        assert (await reader.next()).event == Commit(at=0, text='{"q":2}')


async def test_reader_is_sent_tokens_and_times_when_it_includes_them(served: Served) -> None:
    stream = await served.start()
    async with served.read(stream, policy="hold", include="tokens,timing") as reader:
        await reader.next()
        served.clock.advance(0.25)
        served.backend.say(Verified("ab", tokens=[Token(7, 0), Token(8, 2)]))
        commit = (await reader.next()).event
    assert commit == Commit(at=0, text="ab", t=250.0, tokens=[Token(id=7, n=0), Token(id=8, n=2)])


async def test_head_of_an_event_stream_ends_at_once(served: Served) -> None:
    stream = await served.start()
    answer = await served.http.head(f"/v1/streams/{stream}/events")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"].startswith("text/event-stream")


async def test_expired_stream_says_so(served: Served) -> None:
    stream = await served.start()
    served.backend.say(Finished("stop"))
    served.clock.advance(300.0)
    for path in (f"/v1/streams/{stream}", f"/v1/streams/{stream}/events"):
        answer = await served.http.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (410, "stream_expired")
