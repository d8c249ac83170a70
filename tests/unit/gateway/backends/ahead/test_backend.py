"""The wrapper between an upstream moved by hand and a draft model with a belief."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.backends.ahead import AheadBackend
from gateway.backends.base import (
    Admission,
    BackendEvent,
    Drafted,
    Failed,
    Finished,
    PartBegins,
    TokenCounts,
    Verified,
)
from gateway.errors import BackendError
from protocol.errors import ErrorCode
from protocol.events import Usage
from protocol.ledger import Ledger
from protocol.requests import Draft, GenerationRequest, Message, Regex
from tests.unit.gateway.backends.ahead.doubles import Believer
from tests.unit.gateway.doubles import HandBackend

BELIEF = "The ship sleeps at anchor in the bay, and the crew sleeps too."


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Stream:
    """A stream through the wrapper, whose events go through a ledger: it refuses what is wrong."""

    def __init__(self, belief: str = BELIEF) -> None:
        self.upstream = HandBackend()
        self.drafter = Believer(belief)
        self.clock = Clock()
        self.backend = AheadBackend(self.upstream, self.drafter, now=self.clock)
        self.ledger = Ledger()
        self.events: list[BackendEvent] = []

    def take(self, event: BackendEvent) -> None:
        self.events.append(event)
        match event:
            case Drafted():
                self.ledger.draft(event.tail, event.tokens, event.cause)
            case Verified():
                self.ledger.verify(event.text, event.tail, event.tokens, event.cause)
            case PartBegins():
                self.ledger.begin_part(event.kind)
            case Finished():
                if self.ledger.current.tail:
                    self.ledger.draft("", cause="draft_rejected")
                self.ledger.finish(event.reason, Usage())
            case Failed():
                self.ledger.fail(event.code, event.message, event.retryable)

    async def begin(self, *, want_drafts: bool = True, **asked: Any) -> Admission:
        if "messages" not in asked:
            asked["prompt"] = "Once"
        request = GenerationRequest(model="hand", temperature=0.0, **asked)
        return await self.backend.generate("s", request, self.take, want_drafts=want_drafts)

    async def say(self, *events: BackendEvent, after_s: float = 0.1) -> None:
        for event in events:
            self.clock.now += after_s
            self.upstream.say(event)
            await settle()

    @property
    def tail(self) -> str:
        return self.ledger.current.tail


async def settle() -> None:
    """Until the draft model has said what it will."""
    for _ in range(80):
        await asyncio.sleep(0)


async def test_reader_sees_a_draft_before_the_upstream_has_admitted_the_request():
    stream = Stream()
    stream.upstream.admits.clear()
    admission = await asyncio.wait_for(stream.begin(), 5)
    await settle()
    assert admission.draft_model == "believer"
    assert BELIEF.startswith(stream.tail) and stream.tail
    stream.upstream.admits.set()
    await settle()
    await stream.say(Verified("The ship"), Finished("stop"))
    assert stream.ledger.current.committed_text() == "The ship"


async def test_stream_fails_by_name_when_the_upstream_refuses_it_late():
    stream = Stream()
    stream.upstream.admits.clear()

    async def refuse(*_: object, **__: object) -> Admission:
        await stream.upstream.admits.wait()
        raise BackendError("too many", ErrorCode.OVERLOADED, retryable=True)

    stream.upstream.generate = refuse
    await asyncio.wait_for(stream.begin(), 5)
    stream.upstream.admits.set()
    await settle()
    assert stream.events[-1] == Failed(ErrorCode.OVERLOADED, "too many", True)


async def test_verified_text_is_told_in_the_call_that_brings_it():
    stream = Stream()
    await stream.begin()
    await settle()
    stream.upstream.say(Verified("The shop"))  # and nothing is awaited
    assert stream.ledger.current.committed_text() == "The shop"
    assert stream.tail == ""
    assert stream.ledger.current.cause == "draft_rejected"


async def test_draft_goes_on_behind_other_text_after_a_divergence():
    stream = Stream("The shop sells anchors.")
    stream.drafter.belief = "The ship"
    await stream.begin()
    await settle()
    stream.drafter.belief = "The shop sells anchors."
    await stream.say(Verified("The shop"))
    assert "The shop" in [begun for _, begun in stream.drafter.asked]
    assert stream.tail.startswith(" sells")


async def test_draft_is_bound_to_begin_with_white_space_at_the_seam():
    stream = Stream("x = [\n    1,\n    2,\n]")
    stream.drafter.belief = ""
    await stream.begin()
    await settle()
    stream.drafter.belief = "x = [\n    1,\n    2,\n]"
    await stream.say(Verified("x = [\n    "))
    request, begun = stream.drafter.asked[-1]
    assert begun == "x = ["
    assert request.grammar == Regex(pattern=r"\x{A}\x{20}\x{20}\x{20}\x{20}(?s:.*)")
    assert stream.tail.startswith("1,")


async def test_nothing_is_drafted_when_no_reader_wants_drafts():
    stream = Stream()
    admission = await stream.begin(want_drafts=False)
    await settle()
    await stream.say(Verified("The"))
    assert stream.drafter.asked == []
    assert stream.tail == ""
    assert admission.draft_model == "believer"  # a later reader may want them
    stream.backend.want_drafts("s", True)
    await settle()
    assert stream.tail.startswith(" ship")
    stream.backend.want_drafts("s", False)
    assert stream.tail == ""


async def test_nothing_is_drafted_for_a_request_that_forbids_it_or_has_a_grammar():
    forbidding: list[dict[str, Any]] = [
        {"draft": Draft(length=0)},
        {"grammar": Regex(pattern="[0-9]+")},
    ]
    for asked in forbidding:
        stream = Stream()
        await stream.begin(**asked)
        await settle()
        await stream.say(Verified("The"))
        assert stream.drafter.asked == []


async def test_messages_are_given_to_the_draft_model_as_they_are():
    stream = Stream()
    messages = [Message("user", "Where do ships sleep?")]
    await stream.begin(messages=messages)
    await settle()
    request, _ = stream.drafter.asked[0]
    assert (request.messages, request.prompt) == (messages, None)
    assert (request.temperature, request.priority) == (0.0, -100)


async def test_drafting_stops_when_the_upstream_is_fast_and_begins_again_when_it_slows_down():
    stream = Stream("x" * 1000)
    await stream.begin()
    await settle()
    await stream.say(*[Verified("xxxx")] * 40, after_s=0.004)
    asked = len(stream.drafter.asked)
    await stream.say(Verified("yyyy"), Verified("zzzz"), after_s=0.004)
    assert len(stream.drafter.asked) == asked
    assert stream.tail == ""
    await stream.say(*[Verified("wwww")] * 20, after_s=0.5)
    assert len(stream.drafter.asked) > asked


async def test_engine_is_left_to_its_own_requests_while_they_are_many():
    stream = Stream()
    stream.drafter.live = 2  # of 4 places
    await stream.begin()
    await settle()
    assert stream.drafter.asked == []
    stream.drafter.live = 0
    await stream.say(Verified("The"))
    assert stream.tail.startswith(" ship")


async def test_upstream_with_drafts_of_its_own_is_left_alone():
    stream = Stream()
    await stream.begin()
    await settle()
    await stream.say(Drafted("A boat"), Verified("A boat", cause=None))
    asked = len(stream.drafter.asked)
    await stream.say(Verified(" sails"))
    assert len(stream.drafter.asked) == asked
    assert stream.ledger.current.text(0) == "A boat sails"


async def test_part_begins_without_a_tail_of_the_last_one():
    stream = Stream()
    await stream.begin()
    await settle()
    await stream.say(Verified("The"), PartBegins("tool_call"), Verified("{}"), Finished("stop"))
    assert [part.committed_text() for part in stream.ledger.parts] == ["The", "{}"]


async def test_usage_counts_the_drafts_tokens():
    stream = Stream()
    await stream.begin()
    await settle()
    await stream.say(Verified("The sh"), Finished("stop", TokenCounts(completion=2)))
    finished = stream.events[-1]
    assert isinstance(finished, Finished)
    assert finished.counts.completion == 2
    assert finished.counts.accepted == 2
    assert finished.counts.drafted > 2


async def test_cancelled_stream_ends_once_and_its_run_with_it():
    stream = Stream()
    await stream.begin()
    stream.backend.cancel("s")
    await settle()
    endings = [event.reason for event in stream.events if isinstance(event, Finished)]
    assert endings == ["cancelled"]
    assert stream.drafter.live == 0


@settings(max_examples=60, deadline=None)
@given(
    said=st.lists(st.text("Thesip 👩‍é\n", min_size=1, max_size=6), max_size=12),
    belief=st.text("Thesip 👩‍é\n", max_size=40),
    agree=st.integers(0, 40),
)
async def test_committed_text_is_the_upstreams_whatever_is_drafted(
    said: list[str], belief: str, agree: int
):
    whole = "".join(said)
    stream = Stream(whole[:agree] + belief)
    await stream.begin()
    await settle()
    for text in said:
        await stream.say(Verified(text))
    await stream.say(Finished("stop"))
    assert stream.ledger.current.committed_text() == whole
    shown = [event.tail for event in stream.events if isinstance(event, Drafted | Verified)]
    assert not any("\ufffd" in tail for tail in shown)
