"""Whether a server is asked: a circuit breaker with a half-open probe. No clock of its own."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.backends.openai.errors import UpstreamError
    from gateway.config.upstreams import UpstreamConfig


class Condition(StrEnum):
    UP = "up"
    RESTING = "resting"
    """It is well and asked to be left alone (`Retry-After`)."""
    DOWN = "down"
    PROBED = "probed"
    """It was down, and one request is trying it."""


class Health:
    """Of one server. All times are those of the caller's clock, in seconds."""

    def __init__(self, config: UpstreamConfig) -> None:
        self.last_failure: str | None = None
        self._config = config
        self._failures = 0
        """In a row."""
        self._is_down = False
        self._is_probed = False
        self._until = 0.0
        """Not to be asked before."""
        self._rest_s = config.rest_s

    def condition(self, now: float) -> Condition:
        if self._is_down:
            return Condition.PROBED if self._is_probed else Condition.DOWN
        return Condition.RESTING if now < self._until else Condition.UP

    def may_try(self, now: float) -> bool:
        return now >= self._until and not self._is_probed

    def wait_s(self, now: float) -> float:
        """Until it may be tried."""
        return max(0.0, self._until - now)

    @property
    def is_down(self) -> bool:
        return self._is_down

    def begin(self) -> bool:
        """A request goes there; whether it is the probe of one that is down."""
        self._is_probed = self._is_down
        return self._is_down

    def give_up_probe(self) -> None:
        """It was cancelled before it showed anything."""
        self._is_probed = False

    def answers(self) -> None:
        """It has begun to: it is up, and its earlier failures are not forgotten yet."""
        self._is_down = self._is_probed = False

    def succeed(self) -> None:
        """It has answered whole."""
        self.answers()
        self._failures = 0
        self._rest_s = self._config.rest_s

    def fail(self, now: float, error: UpstreamError) -> None:
        self.last_failure = error.message
        was_probed, self._is_probed = self._is_probed, False
        if error.is_busy:
            self._is_down = False
            if error.retry_after_s is not None:
                self._until = max(self._until, now + error.retry_after_s)
            return
        self._failures += 1
        if (
            was_probed
            or error.refused_connection
            or self._failures >= self._config.failures_until_down
        ):
            if self._is_down and not was_probed:
                return  # one of those under way when it went down
            self._is_down = True
            self._until = now + self._rest_s
            self._rest_s = min(2 * self._rest_s, self._config.longest_rest_s)
