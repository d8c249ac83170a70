"""When a connection that may stay open for ever has been of no use to anybody for too long."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.clock import Clock


class Idleness:
    """Looks every `most_s` whether anything has happened since the look before: so it takes between
    one and two times `most_s` to be noticed, and what happens in between costs nothing.
    """

    def __init__(self, clock: Clock, most_s: float, busy: Callable[[], bool]) -> None:
        """`busy`: whether something is going on now."""
        self.most_s = most_s
        self._clock = clock
        self._busy = busy
        self._stirred = True
        self._over = asyncio.Event()
        self._timer = clock.call_at(clock.now() + most_s, self._look)

    def stir(self) -> None:
        """Something has happened."""
        self._stirred = True

    async def wait(self) -> None:
        """Returns when nothing has happened for `most_s`."""
        await self._over.wait()

    def end(self) -> None:
        """Nobody wants to know any more."""
        self._timer.cancel()

    def _look(self) -> None:
        if not self._stirred and not self._busy():
            self._over.set()
            return
        self._stirred = self._busy()
        self._timer = self._clock.call_at(self._clock.now() + self.most_s, self._look)
