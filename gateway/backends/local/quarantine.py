"""Which streams may run on the engine after engines have ended under them. No I/O.

A request can be poison: whatever engine it runs on, ends. All streams that were on that engine
look the same from here. So after the second end that a stream has seen without getting any further,
it is a *suspect*, and suspects are let back one at a time: each has to prove itself by getting
further, beside those who have, before the next one joins. A suspect on whose trial the engine ends
is tried again with nobody beside it, and given up when it ends that engine too. That explains all
that happened: everybody else is free again.
"""

from __future__ import annotations

SUSPECT_AFTER = 2
"""Engines that ended under a stream, one after the other, before it is a suspect."""
CONVICTED_AFTER = 3
"""At least so many have to have ended under a stream that is given up..."""
BLAMED_AFTER = 2
"""... and so many of them on its trial or while nobody else ran; the last one always was alone."""
PROOF_TOKENS = 16
"""A stream has got further when it has committed so many tokens more than when the engine ended:
what an engine died of at a given place in a text is behind it then."""
TRIAL_S = 20.0
"""After so many seconds the next suspect joins one that has not got further, perhaps because the
engine has no room for it."""


class _Record:
    """What is known of one live stream."""

    def __init__(self) -> None:
        self.on_engine = False
        self.committed = 0
        """Tokens."""
        self.committed_at_end = 0
        """Of the engine that ended last under it."""
        self.ends = 0
        """Engines that ended under it since it last got further."""
        self.blamed = 0
        """Of these, how many were its trial, or had no other stream."""

    @property
    def suspected(self) -> bool:
        return self.ends >= SUSPECT_AFTER

    @property
    def convicted(self) -> bool:
        return self.ends >= CONVICTED_AFTER and self.blamed >= BLAMED_AFTER

    def clear(self) -> None:
        self.ends = self.blamed = 0


class Quarantine:
    """Knows all live streams by id. Methods that return ids name those to put on the engine now."""

    def __init__(self) -> None:
        self.on_trial: str | None = None
        self._records: dict[str, _Record] = {}

    def waits(self, stream: str) -> bool:
        """Whether a live stream is kept off the engine."""
        record = self._records.get(stream)
        return record is not None and not record.on_engine

    @property
    def suspects(self) -> int:
        return sum(record.suspected for record in self._records.values())

    def begin(self, stream: str) -> list[str]:
        """A new stream: it runs at once, but for the time of a trial."""
        self._records[stream] = _Record()
        return self._put([stream] if self.on_trial is None else [])

    def engine_ready(self) -> list[str]:
        """A new engine, without any stream yet."""
        # The newest first: most poison works at once, so it has not been here for long.
        suspects = [name for name, record in self._records.items() if record.suspected][::-1]
        if not suspects:
            return self._put(list(self._records))
        blamed = [name for name in suspects if self._records[name].blamed]
        return self._try(blamed[0] if blamed else suspects[0])

    def got_further(self, stream: str, committed: int) -> list[str]:
        """`stream` has `committed` tokens now."""
        record = self._records[stream]
        record.committed = committed
        if not record.ends or committed - record.committed_at_end < PROOF_TOKENS:
            return []
        record.clear()
        return self._go_on() if stream == self.on_trial else []

    def trial_is_long(self, stream: str) -> list[str]:
        """The trial of `stream` has taken `TRIAL_S`."""
        return self._go_on() if stream == self.on_trial else []

    def end(self, stream: str) -> list[str]:
        """`stream` is over, however it ended. Idempotent."""
        self._records.pop(stream, None)
        return self._go_on() if stream == self.on_trial else []

    def engine_lost(self) -> str | None:
        """The engine ended. Returns the stream that has to be given up for it, if it is known."""
        running = [name for name, record in self._records.items() if record.on_engine]
        on_trial, self.on_trial = self.on_trial, None
        culprit: str | None = None
        for name in running:
            record = self._records[name]
            record.on_engine = False
            record.committed_at_end = record.committed
            record.ends += 1
            record.blamed += name == on_trial or len(running) == 1
            if record.convicted and len(running) == 1:
                culprit = name
        if culprit is not None:
            del self._records[culprit]
            for record in self._records.values():
                record.clear()
        return culprit

    def _go_on(self) -> list[str]:
        """A trial is over and the engine lives: the next suspect, or at the end everybody else."""
        self.on_trial = None
        waiting = [name for name, record in self._records.items() if not record.on_engine]
        suspects = [name for name in waiting if self._records[name].suspected]
        return self._try(suspects[-1]) if suspects else self._put(waiting)

    def _try(self, stream: str) -> list[str]:
        self.on_trial = stream
        return self._put([stream])

    def _put(self, streams: list[str]) -> list[str]:
        for name in streams:
            self._records[name].on_engine = True
        return streams
