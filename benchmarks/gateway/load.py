"""Readers on many connections at once, which do as little as a reader can: count frames, look at a
clock."""

from __future__ import annotations

import asyncio
import re
import time
from typing import NamedTuple, cast

from benchmarks.gateway.source import CLOCK_DIGITS
from benchmarks.peers.base import PeerError
from benchmarks.peers.processes import LOOPBACK

FRAME_END = b"\n\n"
BODY_END = b"0\r\n\r\n"
"""Of a chunked body; no frame of ours ends so."""
TIMEOUT_S = 120.0
_STAMPS = re.compile(rb'"text":"((?:\d{%d})+)"' % CLOCK_DIGITS)


class Talk(NamedTuple):
    """A WebSocket on `path`, on which one `message` is sent."""

    path: str
    message: bytes


class Load(NamedTuple):
    """What a number of answers read together came to."""

    seconds: float
    frames: int
    busy: float
    """Share of the time that this process, the reader, was using a processor."""

    @property
    def rate(self) -> float:
        """Frames a second."""
        return self.frames / self.seconds


class _Reader(asyncio.Protocol):
    def __init__(self, request: bytes) -> None:
        self.frames = 0
        self.head = b""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._last = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self.head:
            self.head = data
        self.take(data)
        if self._last + data[:1] == FRAME_END:
            self.frames += 1
        self.frames += data.count(FRAME_END)
        self._last = data[-1:]
        if self.frames and not self.begun.done():
            self.begun.set_result(None)
        if data.endswith(BODY_END) and not self.ended.done():
            self.ended.set_result(None)
            self.transport.close()

    def take(self, data: bytes) -> None:
        """For those who look closer."""

    def connection_lost(self, exc: Exception | None) -> None:
        for future in (self.begun, self.ended):
            if not future.done():
                future.set_exception(PeerError(f"a connection ended early: {self.head[:200]!r}"))


class _SocketReader(_Reader):
    """Counts the events of a WebSocket, until one is `finish`. Every event says its type once."""

    EVENT = b'"type":"'
    FINISH = EVENT + b"finish"

    def __init__(self, talk: Talk) -> None:
        super().__init__(_handshake(talk.path))
        self._message = _masked(talk.message)
        self._cut = b""
        """The end of what came last: an event may go on behind it."""

    def data_received(self, data: bytes) -> None:
        if not self.head:
            self.head, end, data = data.partition(b"\r\n\r\n")
            if not end or b" 101 " not in self.head:
                self.transport.abort()
                return
            self.transport.write(self._message)
        data = self._cut + data
        self.frames += data.count(self.EVENT) - self._cut.count(self.EVENT)
        if self.FINISH in data and not self.ended.done():
            self.begun.set_result(None)
            self.ended.set_result(None)
            self.transport.close()
        self._cut = data[1 - len(self.FINISH) :]


def _handshake(path: str) -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    ).encode()


def _masked(message: bytes) -> bytes:
    """As one text frame, whose mask changes nothing (RFC 6455, section 5.2)."""
    return b"\x81\xfe" + len(message).to_bytes(2, "big") + bytes(4) + message


class _Timing(_Reader):
    """Texts that say when they were made; how late each is, in ms."""

    def __init__(self, request: bytes) -> None:
        super().__init__(request)
        self.late_ms: list[float] = []

    def take(self, data: bytes) -> None:
        now = time.monotonic_ns()
        for texts in _STAMPS.findall(data):
            for start in range(0, len(texts), CLOCK_DIGITS):
                made = int(texts[start : start + CLOCK_DIGITS])
                self.late_ms.append((now - made) / 1e6)


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n".encode()


def post(path: str, body: bytes) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def read_all(port: int, request: bytes | Talk, connections: int) -> Load:
    """All at once, to the end. Raises PeerError."""
    readers = await _connect(port, [_reader(request) for _ in range(connections)])
    begun, used = time.perf_counter(), time.process_time()
    await _until([reader.ended for reader in readers])
    taken, used = time.perf_counter() - begun, time.process_time() - used
    return Load(taken, sum(reader.frames for reader in readers), used / taken)


def _reader(request: bytes | Talk) -> _Reader:
    return _SocketReader(request) if isinstance(request, Talk) else _Reader(request)


async def lateness(port: int, request: bytes, connections: int) -> list[float]:
    """From an event's making to its arrival here, ms, sorted, of all but the first tenth."""
    readers = [_Timing(request) for _ in range(connections)]
    await _connect(port, readers)
    await _until([reader.ended for reader in readers])
    return sorted(late for each in readers for late in each.late_ms[len(each.late_ms) // 10 :])


async def hold(port: int, request: bytes, connections: int) -> list[asyncio.Transport]:
    """Opens them and waits until each has had its first frame."""
    transports: list[asyncio.Transport] = []
    while len(transports) < connections:
        count = min(100, connections - len(transports))
        readers = await _connect(port, [_Reader(request) for _ in range(count)])
        await _until([reader.begun for reader in readers])
        for reader in readers:
            reader.ended.cancel()  # nobody waits for it
            transports.append(reader.transport)
    return transports


async def _connect(port: int, readers: list[_Reader] | list[_Timing]) -> list[_Reader]:
    loop = asyncio.get_running_loop()
    made = [loop.create_connection(lambda one=one: one, LOOPBACK, port) for one in readers]
    await asyncio.gather(*made)
    return list(readers)


async def _until(futures: list[asyncio.Future[None]]) -> None:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await asyncio.gather(*futures)
    except TimeoutError:
        raise PeerError(f"not read to the end within {TIMEOUT_S:g} s") from None
