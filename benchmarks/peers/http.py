"""A client that costs next to nothing: it shares the cores with the server it measures.

While an answer comes in, bytes are only stamped and kept; they are parsed when it has ended.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import httptools

from benchmarks.peers.base import PeerError
from benchmarks.peers.processes import LOOPBACK, OK
from protocol.sse import SSEParser

if TYPE_CHECKING:
    from collections.abc import Mapping

READ_BYTES = 1 << 16
TIMEOUT_S = 900.0
DONE = "[DONE]"
"""Ends a stream of the OpenAI kind; not JSON."""


class TimedEvent(NamedTuple):
    at_s: float
    """Since the request was sent."""
    data: dict[str, Any]


class Exchange(NamedTuple):
    events: list[TimedEvent]
    total_s: float


class _Body:
    """Callbacks of the HTTP parser: server-sent events, each with the time its bytes came in."""

    def __init__(self) -> None:
        self.now = 0.0
        self.bytes = b""
        self.events: list[TimedEvent] = []
        self._sse = SSEParser()

    def on_body(self, body: bytes) -> None:
        self.bytes += body
        for event in self._sse.feed(body):
            if event.data != DONE:
                self.events.append(TimedEvent(self.now, json.loads(event.data)))


async def post(port: int, path: str, body: Mapping[str, Any]) -> Exchange:
    """One request whose answer is an event stream, on a connection of its own. Raises PeerError."""
    payload = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {LOOPBACK}:{port}\r\nContent-Type: application/json\r\n"
        f"Accept: text/event-stream\r\nContent-Length: {len(payload)}\r\nConnection: close\r\n\r\n"
    )
    pieces: list[tuple[float, bytes]] = []
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            begin = time.perf_counter()
            writer.write(head.encode() + payload)
            while data := await reader.read(READ_BYTES):
                pieces.append((time.perf_counter() - begin, data))
            writer.close()
    except (OSError, TimeoutError) as error:
        raise PeerError(f"no answer: {error!r}") from error
    return _parse(pieces)


def _parse(pieces: list[tuple[float, bytes]]) -> Exchange:
    body = _Body()
    parser = httptools.HttpResponseParser(body)
    for body.now, data in pieces:
        parser.feed_data(data)
    if not pieces or parser.get_status_code() != OK:
        raise PeerError(f"refused: {body.bytes.decode(errors='replace')[:500]}")
    return Exchange(body.events, body.now)
