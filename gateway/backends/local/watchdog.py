"""Tells an engine that hangs from one that is busy. No I/O, no clock: its caller ticks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from engine import frames

if TYPE_CHECKING:
    from gateway.backends.local.process import FromEngine
    from gateway.config import SupervisionConfig

TICKS_PER_ANSWER = 4
"""So many pings go unanswered before an engine is taken for hung."""


class Watchdog:
    """Watches one run of an engine, from its connection on.

    `tick` is to be called every `tick_s` seconds, with a `Ping` sent after each call. Time is
    counted in ticks, not by a clock: when the gateway itself did not run for a while (a suspended
    machine), neither did its ticks, and the engine's answers are read before the next one.

    An engine that loads has `start_s` from one report of progress to the next: its threads may be
    held up for long by libraries that load, so answers say nothing yet. One that is ready has to
    answer within `answer_s`, and its answers tell for how long its present step has been running.
    """

    def __init__(self, limits: SupervisionConfig) -> None:
        self.tick_s = limits.answer_s / TICKS_PER_ANSWER
        self._limits = limits
        self._loading: str | None = "starting"
        """What it is doing; None once it is ready."""
        self._silent_ticks = 0
        self._busy_s = 0.0

    def heard(self, frame: FromEngine) -> None:
        """The engine sent `frame`."""
        match frame:
            case frames.Loading():
                self._loading = frame.phase
            case frames.Ready():
                self._loading = None
            case frames.Pong():
                self._busy_s = frame.busy_s
                if self._loading is not None:
                    return  # alive, but no further
            case _:
                pass
        self._silent_ticks = 0

    def tick(self) -> str | None:
        """Why the engine has to be taken for hung; None when it need not."""
        self._silent_ticks += 1
        limits = self._limits
        if self._loading is not None:
            if self._silent_ticks > math.ceil(limits.start_s / self.tick_s):
                return f"no progress for {limits.start_s:g} s while {self._loading}"
        elif self._silent_ticks > TICKS_PER_ANSWER:
            return f"no answer for {limits.answer_s:g} s"
        elif self._busy_s > limits.step_s:
            return f"one step has taken more than {limits.step_s:g} s"
        return None
