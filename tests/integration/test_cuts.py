"""Connections are cut after any number of bytes, and readers come back, each time with another
policy, unit and transport: none of them loses or repeats anything.

`make test` cuts a scripted stream, `make test-heavy` those of a real engine, too, 200 times each.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

import wetink
from gateway.backends.base import Drafted, Finished, PartBegins, Verified
from gateway.backends.local import LocalBackend
from gateway.backends.scripted import ScriptedBackend, Step
from gateway.config import EngineConfig
from protocol import cursor as cursors
from protocol import units
from protocol.events import OffsetUnit
from tests.server.gateways import serving
from tests.unit.wetink.servers import cutting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import httpx

    from gateway.backends.base import Backend
    from wetink.client import TransportName

CUTS_PER_STREAM = 10
LONGEST_PIECE = 1500
"""Bytes of a connection before it is cut; the headers of a response are some 250."""
WORDS = (
    "the ",
    "ink. ",
    "caf\u00e9, ",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 ",
    "\u65e5\u672c\u3002",
    "so?\n\n",
    "e\u0301 ",
    "\U00020bb7",
)
POLICIES: tuple[str | wetink.StreamRetract | wetink.Chunk, ...] = (
    *("hold", "retract", "retract:0.05", "chunk:sentence"),
    wetink.Chunk(unit="word", tail=True, max_delay_ms=20),
    wetink.StreamRetract(max_tail=5, grapheme_safe=True),
)
TRANSPORTS: tuple[TransportName, ...] = ("sse", "ws")
NO_RETRY = wetink.Retry(attempts=0)


def scripted(chance: random.Random) -> ScriptedBackend:
    """Two parts, drafts of which half are wrong, text of every width."""
    steps: list[Step] = []
    for number in range(2):
        if number:
            steps.append(Step(0.0, PartBegins("reasoning")))
        for _ in range(40):
            word, draft = chance.choice(WORDS), "".join(chance.choices(WORDS, k=2))
            right = chance.random() < 0.5
            steps.append(
                Step(0.004, Drafted(word + draft if right else draft, cause="draft_rejected"))
            )
            steps.append(Step(0.004, Verified(word, draft if right else "", "draft_rejected")))
        steps.append(Step(0.0, Drafted("", cause="draft_rejected")))
    steps.append(Step(0.0, Finished("stop")))
    return ScriptedBackend({"words": steps})


class Returning:
    """A reader who keeps its text and its cursor, and nothing else."""

    def __init__(self, url: str, stream: str, chance: random.Random) -> None:
        self.parts: dict[int, str] = {}
        self.cuts = 0
        self._url = url
        self._stream = stream
        self._chance = chance
        self._cursor: str | None = None

    async def read_to_the_end(self) -> None:
        while not await self._attach():
            self.cuts += 1

    async def _attach(self) -> bool:
        """Reads until the connection is cut; whether the stream was complete."""
        unit = self._chance.choice(list(OffsetUnit))
        position = self._position(unit)
        reading = wetink.attach(
            self._url,
            self._stream,
            cursor=None if position is None else str(position),
            held=None if position is None else self.parts[position.part],
            policy=self._chance.choice(POLICIES),
            offsets=unit,
            transport=self._chance.choice(TRANSPORTS),
            retry=NO_RETRY,
        )
        try:
            async with reading:
                async for _ in reading:
                    pass
        except wetink.ConnectionLost:
            pass
        for part in reading.view.parts:
            assert part.committed.startswith(self.parts.get(part.index, ""))
            self.parts[part.index] = part.committed
        self._cursor = reading.cursor
        return reading.complete

    def _position(self, unit: OffsetUnit) -> cursors.Cursor | None:
        """The cursor in another unit."""
        if self._cursor is None:
            return None
        position = cursors.parse(self._cursor)
        return position._replace(offset=units.length(self.parts[position.part], unit))


async def read_through_cuts(
    url: str, http: httpx.AsyncClient, number: int, request: Mapping[str, object]
) -> int:
    chance = random.Random(number)
    stream = (await http.post("/v1/streams", json=request)).json()["stream"]
    cuts = [chance.randint(1, LONGEST_PIECE) for _ in range(CUTS_PER_STREAM)]
    async with cutting(url, cuts) as proxy:
        reader = Returning(proxy, stream, chance)
        await reader.read_to_the_end()
    snapshot = (await http.get(f"/v1/streams/{stream}")).json()
    assert snapshot["state"] == "finished"
    assert reader.parts == {part["part"]: part["committed"] for part in snapshot["parts"]}
    return reader.cuts


async def cut_all(backend: Backend, requests: Sequence[Mapping[str, object]]) -> int:
    # On a busy machine some have to expect a long wait for their turn.
    async with serving(backend, overload__longest_wait_s=3600.0) as (url, http):
        # A loop that was busy for longer than a connection is kept finds it closed while it sends.
        http.headers["Connection"] = "close"
        http.timeout = None  # a start waits for its turn behind streams that are cut
        while (await http.get("/readyz")).status_code != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        cuts = await asyncio.gather(
            *(read_through_cuts(url, http, *each) for each in enumerate(requests))
        )
    return sum(cuts)


@pytest.mark.slow
async def test_reader_who_is_cut_and_comes_back_otherwise_has_the_same_text() -> None:
    assert await cut_all(scripted(random.Random(1)), [{"prompt": "x"}] * 4) >= 20


@pytest.mark.heavy
@pytest.mark.timeout(900)
@pytest.mark.parametrize("source", ["scripted", "engine"])
async def test_readers_who_are_cut_two_hundred_times_have_the_same_text(source: str) -> None:
    requests: list[dict[str, object]] = [
        {"prompt": f"Chapter {number}.", "seed": number, "max_tokens": 60, "temperature": 1.2}
        for number in range(40)
    ]
    engine = EngineConfig(draft_length=4, context_length=256)
    backend = scripted(random.Random(2)) if source == "scripted" else LocalBackend(engine)
    assert await cut_all(backend, requests) >= 200
