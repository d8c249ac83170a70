from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from gateway.config import OverloadConfig
from gateway.overload import Turns
from protocol.errors import RequestError
from tests.unit.gateway.doubles import FakeClock

if TYPE_CHECKING:
    from gateway.overload import Turn


class Room:
    """Turns with two places, and who got one in which order."""

    def __init__(self, places: int | None = 2, **config: Any) -> None:
        self.clock = FakeClock()
        self.places = places
        self.turns = Turns(OverloadConfig(**config), lambda: self.places, self.clock)
        self.served: list[str] = []
        self.granted: dict[str, Turn] = {}

    def come(self, name: str, owner: str = "", priority: int = 0) -> asyncio.Task[None]:
        async def wait() -> None:
            self.granted[name] = await self.turns.take(owner, priority)
            self.served.append(name)

        return asyncio.create_task(wait())

    async def end(self, name: str, tokens: int | None = 10) -> None:
        self.granted.pop(name).give(tokens)
        await settle()


async def settle() -> None:
    """Lets everybody who can go on do so."""
    for _ in range(10):
        await asyncio.sleep(0)


async def refusal_of(waiting: asyncio.Task[None]) -> RequestError:
    with pytest.raises(RequestError) as refused:
        await waiting
    assert refused.value.code == "overloaded"
    return refused.value


async def test_requests_are_served_in_their_order_as_places_become_free() -> None:
    room = Room()
    for name in "abcde":
        room.come(name)
    await settle()
    assert (room.served, room.turns.waiting, room.turns.generating) == (["a", "b"], 3, 2)
    await room.end("b")
    await room.end("a")
    assert room.served == ["a", "b", "c", "d"]
    await room.end("c")
    assert room.turns.waiting == 0


async def test_backend_without_a_bound_lets_everybody_in() -> None:
    room = Room(places=None)
    for name in "abcdefgh":
        room.come(name)
    await settle()
    assert len(room.served) == 8


async def test_operator_may_set_the_number_of_places() -> None:
    room = Room(places=None)
    room.turns.change(OverloadConfig(places=1))
    for name in "ab":
        room.come(name)
    await settle()
    assert room.served == ["a"]
    room.turns.change(OverloadConfig(places=2))
    await settle()
    assert room.served == ["a", "b"]


async def test_higher_priority_goes_first() -> None:
    room = Room(places=1)
    for name, priority in (("now", 0), ("low", -5), ("usual", 0), ("high", 5), ("usual2", 0)):
        room.come(name, priority=priority)
    await settle()
    for name in ("now", "high", "usual", "usual2"):
        await room.end(name)
    assert room.served == ["now", "high", "usual", "usual2", "low"]


async def test_greedy_party_holds_up_itself_and_not_others() -> None:
    room = Room(places=4)
    for number in range(12):
        room.come(f"greedy{number}", "greedy")
    await settle()
    for number in range(3):
        room.come(f"modest{number}", "modest")
    await settle()
    served = [name for name in room.served if name.startswith("greedy")]
    for number in range(2):
        await room.end(served[number])
    assert room.served[4:] == ["modest0", "modest1"]
    # Two each: now it is the turn of the one whose turn was the longest ago.
    await room.end("modest0")
    assert room.served[6:] == ["modest2"]
    await room.end("modest1")
    assert room.served[7:] == ["greedy4"]


async def test_parties_take_turns_where_there_is_one_place() -> None:
    room = Room(places=1)
    for number in range(4):
        room.come(f"greedy{number}", "greedy")
    await settle()
    for number in range(2):
        room.come(f"modest{number}", "modest")
    await settle()
    for _ in range(5):
        await room.end(room.served[-1])
    assert room.served == ["greedy0", "modest0", "greedy1", "modest1", "greedy2", "greedy3"]


async def test_nothing_is_kept_of_parties_that_have_gone() -> None:
    room = Room(places=1)
    room.come("a", "one")
    withdrawn = room.come("b", "two")
    room.come("c", "one")
    await settle()
    withdrawn.cancel()
    await room.end("a")
    await room.end("c")
    left = vars(room.turns)
    assert not left["_last_turn"]
    assert not left["_generating"]


async def test_whoever_has_waited_too_long_is_not_overtaken() -> None:
    room = Room(places=2, longest_wait_s=9.0)
    for name in ("a", "b", "old"):
        room.come(name, "one")
    await settle()
    room.clock.advance(9.0)
    room.come("new", "other")
    await settle()
    await room.end("a")
    assert room.served[2:] == ["old"]


async def test_wait_is_expected_from_how_long_streams_take() -> None:
    room = Room()
    assert room.turns.expected_s() == 0.0
    for name in "abcdef":
        room.come(name)
    await settle()
    assert room.turns.expected_s() == 0.0  # none has ended yet
    room.clock.advance(10.0)
    await room.end("a")
    # Two generate and three wait: four places have to become free, two every ten seconds.
    assert room.turns.expected_s() == pytest.approx(20.0)
    assert room.turns.expected_s(ahead=0) == pytest.approx(5.0)
    room.clock.advance(40.0)
    await room.end("b")  # it took 50 s
    assert room.turns.expected_s(ahead=0) == pytest.approx((10.0 + 0.1 * 40.0) / 2)
    for name in ("c", "d", "e", "f"):
        await room.end(name, tokens=0)  # none of these began
    assert room.turns.expected_s() == 0.0


async def test_turn_knows_what_newcomers_had_to_expect() -> None:
    room = Room(places=1)
    for name in "abc":
        room.come(name)
    await settle()
    room.clock.advance(4.0)
    await room.end("a")
    assert room.granted["b"].expected_s == pytest.approx(4.0)  # behind c
    await room.end("b", tokens=0)
    assert room.granted["c"].expected_s == 0.0


async def test_request_that_would_wait_too_long_is_refused_at_once() -> None:
    room = Room(places=1, longest_wait_s=9.0)
    for name in "ab":
        room.come(name)
    await settle()
    room.clock.advance(5.0)
    await room.end("a")
    waiting = room.come("c")
    await settle()
    assert not waiting.done()
    refused = await refusal_of(room.come("d"))
    assert "a place would be free in 10 s only" in refused.message
    assert refused.retry_after_s == pytest.approx(10.0)
    room.come("urgent", priority=1)
    await settle()
    await room.end("b", tokens=0)
    assert room.served == ["a", "b", "urgent"]


async def test_queue_is_bounded() -> None:
    room = Room(places=1, waiting=2)
    for name in "abc":
        room.come(name)
    await settle()
    refused = await refusal_of(room.come("d"))
    assert "2 requests are waiting already" in refused.message
    assert room.turns.waiting == 2


async def test_last_of_the_lowest_priority_gives_way_in_a_full_queue() -> None:
    room = Room(places=1, waiting=2)
    room.come("a")
    await settle()
    low, lower = room.come("low", priority=-1), room.come("lower", priority=-2)
    await settle()
    room.come("usual")
    assert "others with a better claim" in (await refusal_of(lower)).message
    room.come("usual2")
    await refusal_of(low)
    await refusal_of(room.come("low2", priority=-1))
    await room.end("a")
    await room.end("usual")
    assert room.served == ["a", "usual", "usual2"]


async def test_greedy_party_gives_way_in_a_full_queue() -> None:
    room = Room(places=1, waiting=4)
    room.come("a", "greedy")
    await settle()
    greedy = [room.come(f"greedy{number}", "greedy") for number in range(4)]
    await settle()
    for number in range(2):
        room.come(f"modest{number}", "modest")
        await settle()
    assert [each.done() for each in greedy] == [False, False, True, True]
    for each in greedy[2:]:
        await refusal_of(each)
    # Now both have two waiting, so that neither has to give way.
    await refusal_of(room.come("modest2", "modest"))
    await refusal_of(room.come("greedy4", "greedy"))


async def test_request_that_is_withdrawn_leaves_its_place() -> None:
    room = Room(places=1)
    room.come("a")
    withdrawn = room.come("b")
    room.come("c")
    await settle()
    withdrawn.cancel()
    await settle()
    assert room.turns.waiting == 1
    granted = asyncio.create_task(room.turns.take("", 0))
    await settle()
    await room.end("a")
    assert room.served == ["a", "c"]
    # Withdrawn at the very moment of its grant: the place is free again.
    room.granted["c"].give(10)
    granted.cancel()
    await settle()
    assert (room.turns.generating, room.turns.waiting) == (0, 0)


async def test_everybody_who_waits_is_told_of_the_end() -> None:
    room = Room(places=1)
    room.come("a")
    waiting = [room.come(name) for name in "bc"]
    await settle()
    room.turns.close()
    for each in waiting:
        with pytest.raises(RequestError) as refused:
            await each
        assert refused.value.code == "shutting_down"
    assert room.turns.waiting == 0


async def test_wait_of_those_who_are_served_stays_flat_at_five_times_the_load() -> None:
    """Ten places, streams of 5 to 15 s, five requests a second where one can be served."""
    tick_s, longest_s = 0.2, 5.0
    room = Room(places=10, waiting=1000, longest_wait_s=longest_s)
    began = room.clock.now()
    waits: list[float] = []
    endings: dict[int, list[Turn]] = {}

    def tick() -> int:
        return round((room.clock.now() - began) / tick_s)

    async def request(number: int) -> None:
        came = tick()
        turn = await room.turns.take(f"key{number % 7}", 0)
        waits.append((tick() - came) * tick_s)
        endings.setdefault(tick() + 25 + number * 17 % 51, []).append(turn)

    requests: list[asyncio.Task[None]] = []
    for now in range(3000):
        for turn in endings.pop(now, []):
            turn.give(10)
        requests.append(asyncio.create_task(request(now)))
        await settle()
        room.clock.advance(tick_s)
    for each in requests:
        each.cancel()
    outcomes = await asyncio.gather(*requests, return_exceptions=True)
    refused = sum(isinstance(outcome, RequestError) for outcome in outcomes)
    third = len(waits) // 3
    middle, late = sorted(waits[third : 2 * third]), sorted(waits[2 * third :])
    assert third > 180  # of the 600 that could be served
    assert refused > 2000
    assert abs(late[third // 2] - middle[third // 2]) < 1.0
    assert late[-1] < 2 * longest_s
