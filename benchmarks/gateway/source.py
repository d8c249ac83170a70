"""A source of tokens that costs next to nothing, and the frames it ends up as."""

from __future__ import annotations

import asyncio
import time
from itertools import chain, repeat
from typing import TYPE_CHECKING

from gateway.backends.base import (
    Admission,
    BackendEvent,
    Drafted,
    Finished,
    Load,
    ModelInfo,
    Sink,
    Verified,
)
from gateway.policies import SpecPolicy
from protocol import sse
from protocol.codec import encode_json
from protocol.edition import Edition
from protocol.events import OffsetUnit
from protocol.ledger import Ledger
from protocol.requests import Hold, StreamRetract
from protocol.sender import Sender

if TYPE_CHECKING:
    from collections.abc import Iterator

    from protocol.events import ServerEvent
    from protocol.requests import GenerationRequest

WORD = " benchmark"
HELD = 3
"""Words of a draft; each second draft loses its last one."""
SENTENCE = 8
"""Words."""
STREAM_DIGITS = 22
"""Of the gateway's stream ids."""
EPOCH = 1_700_000_000_000
_END = Finished("stop")
HEAD_START = 16
"""Turns of the event loop before the first event: what comes before there is a reader is merged."""
CLOCK_DIGITS = 20
"""Of a paced event, whose text is the nanoseconds of the monotonic clock when it was made."""


def verified(count: int) -> Iterator[BackendEvent]:
    """`count` committed words, one event each: what `hold` delivers."""
    event = Verified(WORD)
    for _ in range(count):
        yield event


def sentences(count: int) -> Iterator[BackendEvent]:
    """`count` committed words, one event each, eight to a sentence: what `chunk` delivers."""
    words = (" Then", *[WORD] * (SENTENCE - 2), f"{WORD}.")
    events = [Verified(word) for word in words]
    for number in range(count):
        yield events[number % SENTENCE]


def drafted(count: int) -> Iterator[BackendEvent]:
    """`count` events, drafts and their verdicts in turn: what `retract` delivers."""
    draft = Drafted(WORD * HELD)
    verdicts = (
        Verified(WORD * HELD),
        Verified(WORD * (HELD - 1) + " target", cause="draft_rejected"),
    )
    for number in range(count):
        yield verdicts[number // 2 % 2] if number % 2 else draft


def frames(count: int, kind: str = "hold") -> list[bytes]:
    """The frames that `count` events of `kind`, "hold" or "retract", end up as: one for each."""
    writer = sse.EventWriter()
    opened, *steps = _steps(count, kind, multiplexed=False)
    writer.encode(*opened)
    return [b"".join(map(writer.encode, events)) for events in steps]


def messages(count: int, kind: str = "hold") -> list[str]:
    """The WebSocket messages that they end up as."""
    _, *steps = _steps(count, kind, multiplexed=True)
    return [encode_json(event).decode() for events in steps for event in events]


def _steps(count: int, kind: str, *, multiplexed: bool) -> Iterator[list[ServerEvent]]:
    """`open`, and what each of `count` events of `kind` ends up as."""
    ledger = Ledger()
    policy = SpecPolicy(StreamRetract() if kind == "retract" else Hold())
    unit = OffsetUnit.CODEPOINT
    sender = Sender(
        Edition(
            ledger,
            policy,
            stream="s" * STREAM_DIGITS,
            epoch=EPOCH,
            model="m",
            unit=unit,
            started_at=0.0,
            multiplexed=multiplexed,
        )
    )
    yield [sender.open()]
    for event in drafted(count) if kind == "retract" else verified(count):
        match event:
            case Verified():
                ledger.verify(event.text, event.tail, cause=event.cause)
            case Drafted():
                ledger.draft(event.tail)
            case _:
                raise AssertionError(event)
        yield sender.advance(0.0)


def _after_a_while(events: Iterator[BackendEvent]) -> Iterator[BackendEvent | None]:
    """None: nothing in this turn."""
    return chain(repeat(None, HEAD_START), events)


def clock_text() -> str:
    return f"{time.monotonic_ns():0{CLOCK_DIGITS}d}"


class Source:
    """A backend. `max_tokens` of a request is its number of events, its `model` says which:

    `hold`, `retract` and `chunk` play as fast as they are read, one event of each stream per turn
    of the event loop; `paced` plays all streams together, `rate` times a second; `idle` says
    nothing.
    """

    MODELS = ("hold", "retract", "chunk", "paced", "idle")

    def __init__(self, rate: float = 50.0) -> None:
        self._rate = rate
        self._playing: dict[str, tuple[Sink, Iterator[BackendEvent | None]]] = {}
        self._paced: dict[str, tuple[Sink, int]] = {}
        self._sinks: dict[str, Sink] = {}
        self._work = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def ready(self) -> bool:
        return bool(self._tasks)

    async def start(self) -> None:
        self._tasks = [asyncio.create_task(self._play()), asyncio.create_task(self._tick())]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def places(self) -> int | None:
        return None

    def models(self) -> list[ModelInfo]:
        return [ModelInfo(id=name, context_length=1 << 20) for name in self.MODELS]

    def load(self) -> Load:
        return Load()

    async def generate(
        self,
        stream: str,
        request: GenerationRequest,
        sink: Sink,
        *,
        want_drafts: bool = False,
        tenant: str = "",
    ) -> Admission:
        self._sinks[stream] = sink
        match request.model:
            case "hold":
                self._playing[stream] = (sink, _after_a_while(verified(request.max_tokens)))
            case "retract":
                self._playing[stream] = (sink, _after_a_while(drafted(request.max_tokens)))
            case "chunk":
                self._playing[stream] = (sink, _after_a_while(sentences(request.max_tokens)))
            case "paced":
                self._paced[stream] = (sink, request.max_tokens)
            case _:
                pass
        if self._playing:
            self._work.set()
        return Admission(prompt_tokens=1, seed=request.seed)

    def cancel(self, stream: str) -> None:
        self._playing.pop(stream, None)
        self._paced.pop(stream, None)
        sink = self._sinks.pop(stream, None)
        if sink is not None:
            sink(Finished("cancelled"))

    def want_drafts(self, stream: str, wanted: bool) -> None:
        pass

    async def _play(self) -> None:
        while True:
            await self._work.wait()
            # A turn of the loop in between, so that all who were started together play together.
            await asyncio.sleep(0)
            for stream, (sink, events) in list(self._playing.items()):
                event = next(events, _END)
                if event is _END:
                    del self._playing[stream], self._sinks[stream]
                if event is not None:
                    sink(event)
            if not self._playing:
                self._work.clear()

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + 1 / self._rate, loop.time())
            await asyncio.sleep(due - loop.time())
            for stream, (sink, left) in list(self._paced.items()):
                if left:
                    self._paced[stream] = (sink, left - 1)
                    sink(Verified(clock_text()))
                else:
                    del self._paced[stream], self._sinks[stream]
                    sink(Finished("stop"))
