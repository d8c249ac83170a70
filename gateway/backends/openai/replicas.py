"""The servers of one upstream: which of them is asked."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gateway.backends.base import ServerState
from gateway.backends.openai.errors import UpstreamError
from gateway.backends.openai.replica import Replica
from protocol.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Collection

    from gateway.config.upstreams import UpstreamConfig


class Replicas:
    def __init__(self, config: UpstreamConfig) -> None:
        self.all = [Replica(config.title, url, config) for url in config.addresses]
        self._config = config
        self._turn = 0

    @property
    def willing(self) -> list[Replica]:
        """Those that could be asked now."""
        now = time.monotonic()
        return [replica for replica in self.all if replica.health.may_try(now)]

    def states(self) -> list[ServerState]:
        now = time.monotonic()
        return [
            ServerState(
                url=replica.url,
                condition=replica.health.condition(now),
                outstanding=replica.outstanding,
                requests=replica.requests,
                failures=dict(replica.failures),
                last_failure=replica.health.last_failure,
                tried_in_s=round(replica.health.wait_s(now), 1),
            )
            for replica in self.all
        ]

    def pick(self, tried: Collection[Replica] = ()) -> Replica:
        """The one to ask now: one that has been down and is due for a try, else the one with the
        fewest requests under way; one that was not tried yet, where there is one.

        Raises UpstreamError when none can be asked; it says in how many seconds one may.
        """
        now = time.monotonic()
        willing = self.willing
        if not willing:
            raise self._unavailable(now)
        most = self._config.max_outstanding
        free = [each for each in willing if most is None or each.outstanding < most]
        if not free:
            raise UpstreamError(
                f"upstream {self._config.title} has {most} requests under way on each server",
                ErrorCode.OVERLOADED,
            )
        candidates = [each for each in free if each not in tried] or free
        # Ties in turn, or the first one would get every lonely request.
        self._turn += 1
        start = self._turn % len(candidates)
        return min(
            (*candidates[start:], *candidates[:start]),
            key=lambda each: (not each.health.is_down, each.outstanding),
        )

    def _unavailable(self, now: float) -> UpstreamError:
        soonest = min(self.all, key=lambda each: each.health.wait_s(now))
        wait_s = soonest.health.wait_s(now)
        why = soonest.health.last_failure or f"upstream {self._config.title} is being tried"
        is_resting = not any(each.health.is_down for each in self.all)
        return UpstreamError(
            f"{why}; it is tried again in {wait_s:.1f} s",
            ErrorCode.RATE_LIMITED if is_resting else ErrorCode.ENGINE_UNAVAILABLE,
            retry_after_s=wait_s,
        )
