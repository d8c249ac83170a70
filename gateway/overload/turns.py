"""Who generates next when there are more requests than places.

Higher priority goes first. Within one, the party with the fewest streams generating does, of these
the one whose turn was the longest ago: a party that sends a hundred requests at once holds up
itself, not others. Who has waited for longer than anybody is meant to is not overtaken any more.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from protocol.errors import ErrorCode, RequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from gateway.clock import Clock
    from gateway.config import OverloadConfig

WEIGHT = 0.1
"""Of the newest stream in the running mean of how long streams take: some twenty are remembered."""


class _Waiting(NamedTuple):
    owner: str
    priority: int
    arrival: int
    since: float
    granted: asyncio.Future[Turn]


class Turn:
    """A place among those who generate; a `Claim` that was taken when it was granted."""

    def __init__(self, turns: Turns, owner: str, began: float, expected_s: float) -> None:
        self.expected_s = expected_s
        """How long whoever came at the moment of the grant had to expect to wait, in seconds."""
        self.owner = owner
        self.began = began
        self._turns = turns

    def take(self) -> None:
        """It is taken already."""

    def give(self, tokens: int | None = None) -> None:
        """The stream has ended, or never began (`tokens`: 0)."""
        self._turns.give(self, counts=tokens != 0)


class Turns:
    """Hands out as many turns as there are places; the rest wait, a bounded number for a bounded
    time. Made on the running event loop.
    """

    def __init__(
        self, config: OverloadConfig, places: Callable[[], int | None], clock: Clock
    ) -> None:
        """`places`: how many streams the backend generates at once; None: any number."""
        self._config = config
        self._places = places
        self._clock = clock
        self._generating: Counter[str] = Counter()
        self._last_turn: dict[str, int] = {}
        """Of parties that generate or wait: number of their latest turn."""
        self._turns = 0
        self._waiting: list[_Waiting] = []
        self._arrivals = 0
        self._mean_s: float | None = None
        """How long a stream takes, from its turn to its end."""

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def generating(self) -> int:
        return self._generating.total()

    def expected_s(self, ahead: int | None = None) -> float:
        """How long somebody has to wait behind `ahead` others (None: behind all), in seconds; 0
        where nobody has to, or where no stream has ended yet.
        """
        places = self._limit()
        ahead = self.waiting if ahead is None else ahead
        if places is None or self._mean_s is None or self.generating + ahead < places:
            return 0.0
        return (self.generating + ahead - places + 1) * self._mean_s / places

    async def take(self, owner: str, priority: int) -> Turn:
        """Returns when it is this party's turn. Cancelling it gives the place in the queue up.

        Raises RequestError (`overloaded`) when too many wait, or for too long; whoever waits is
        refused too when somebody with a better claim needs the place in the queue.
        """
        if self._has_place() and not self._waiting:
            return self._grant(owner)
        self._require_room(owner, priority)
        self._arrivals += 1
        granted: asyncio.Future[Turn] = asyncio.get_running_loop().create_future()
        mine = _Waiting(owner, priority, self._arrivals, self._clock.now(), granted)
        self._waiting.append(mine)
        try:
            return await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                granted.result().give(0)
            raise
        finally:
            if mine in self._waiting:
                self._waiting.remove(mine)
            self._forget(owner)

    def give(self, turn: Turn, *, counts: bool) -> None:
        """A place is free again. `counts`: whether its time says how long streams take."""
        self._generating[turn.owner] -= 1
        if not self._generating[turn.owner]:
            del self._generating[turn.owner]
        self._forget(turn.owner)
        if counts:
            took = self._clock.now() - turn.began
            mean = took if self._mean_s is None else self._mean_s
            self._mean_s = mean + WEIGHT * (took - mean)
        self._call_next()

    def change(self, config: OverloadConfig) -> None:
        """Other bounds from now on; whoever waits is not refused for them."""
        self._config = config
        self._call_next()

    def refuse(self, owners: Collection[str], error: RequestError) -> None:
        """Those of `owners` who wait are told so now and not at their turn."""
        for each in self._waiting:
            if each.owner in owners and not each.granted.done():
                each.granted.set_exception(error)

    def close(self) -> None:
        """Nobody gets a turn any more; whoever waits is told."""
        for each in self._waiting:
            if not each.granted.done():
                each.granted.set_exception(
                    RequestError(ErrorCode.SHUTTING_DOWN, "the gateway is shutting down")
                )

    def _limit(self) -> int | None:
        return self._places() if self._config.places is None else self._config.places

    def _has_place(self) -> bool:
        limit = self._limit()
        return limit is None or self.generating < limit

    def _grant(self, owner: str) -> Turn:
        turn = Turn(self, owner, self._clock.now(), self.expected_s())
        self._generating[owner] += 1
        self._turns += 1
        self._last_turn[owner] = self._turns
        return turn

    def _forget(self, owner: str) -> None:
        """Nothing is kept of a party that neither generates nor waits."""
        if owner not in self._generating and all(each.owner != owner for each in self._waiting):
            self._last_turn.pop(owner, None)

    def _call_next(self) -> None:
        while self._waiting and self._has_place():
            following = min(self._waiting, key=self._rank)
            self._waiting.remove(following)
            if not following.granted.done():
                following.granted.set_result(self._grant(following.owner))

    def _rank(self, each: _Waiting) -> tuple[int, int, int, int]:
        """Order of service: least first."""
        if self._clock.now() - each.since >= self._config.longest_wait_s:
            return (-each.priority, -1, 0, each.arrival)
        last_turn = self._last_turn.get(each.owner, 0)
        return (-each.priority, self._generating[each.owner], last_turn, each.arrival)

    def _require_room(self, owner: str, priority: int) -> None:
        """Raises RequestError where somebody who comes now would wait too long, or where the queue
        is full and nobody in it has to give way.
        """
        ahead = sum(each.priority >= priority for each in self._waiting)
        expected_s = self.expected_s(ahead)
        if expected_s > self._config.longest_wait_s:
            raise self._refusal(f"a place would be free in {expected_s:.0f} s only")
        if len(self._waiting) < self._config.waiting:
            return
        lengths = Counter(each.owner for each in self._waiting)
        last = max(self._waiting, key=lambda each: (*self._surplus(each, lengths), each.arrival))
        lengths[owner] += 1
        if (-priority, lengths[owner]) >= self._surplus(last, lengths):
            raise self._refusal(f"{len(self._waiting)} requests are waiting already")
        self._waiting.remove(last)
        if not last.granted.done():
            last.granted.set_exception(self._refusal("others with a better claim are waiting"))

    @staticmethod
    def _surplus(each: _Waiting, lengths: Counter[str]) -> tuple[int, int]:
        """How little claim it has to a place in the queue."""
        return (-each.priority, lengths[each.owner])

    def _refusal(self, why: str) -> RequestError:
        return RequestError(
            ErrorCode.OVERLOADED,
            f"the gateway is overloaded: {why}; try again later",
            retry_after_s=self.expected_s(),
        )
