"""Servers the client is tried against: canned HTTP answers, and a proxy that cuts connections."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence


def event(type_: str, **fields: Any) -> bytes:
    """One SSE frame as a gateway sends it."""
    return f"data: {json.dumps({'type': type_, **fields})}\n\n".encode()


def opening(at: int = 0, **fields: Any) -> bytes:
    return event(
        "open",
        **{
            "stream": "s1",
            "v": 1,
            "epoch": 7,
            "model": "m",
            "policy": {"kind": "retract"},
            "offsets": "codepoint",
            "part": 0,
            "at": at,
            **fields,
        },
    )


def finish(at: int, digest: str, **fields: Any) -> bytes:
    stats = {"erased_units": 0, "normalized_erasure": 0.0, "retractions": 0, "longest_tail": 0}
    body = {"at": at, "reason": "stop", "usage": {}, "digest": digest, "stats": stats, **fields}
    return event("finish", **body)


def event_stream(*frames: bytes) -> bytes:
    """A response whose end of body is the end of the connection."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    return head + b"".join(frames)


def answer(status: int, body: Any = None, **headers: str) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Status", "Connection: close"]
    if status != 204:
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


def refusal(status: int, code: str, param: str | None = None, **headers: str) -> bytes:
    detail = {"code": code, "message": "no", "param": param}
    return answer(status, {"error": detail}, **headers)


class CannedServer:
    """Answers each connection with the next of `answers`, then closes it; refuses more."""

    def __init__(self, answers: Sequence[bytes]) -> None:
        self._answers = list(answers)
        self.requests: list[str] = []
        """Request lines, in order."""
        self.bodies: list[bytes] = []
        self.url = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.requests.append(head.partition("\r\n")[0])
        length = next(
            (
                int(line.split(":")[1])
                for line in head.split("\r\n")
                if "content-length" in line.lower()
            ),
            0,
        )
        self.bodies.append(await reader.readexactly(length))
        writer.write(self._answers.pop(0) if self._answers else refusal(404, "unknown_stream"))
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def canned(*answers: bytes) -> AsyncGenerator[CannedServer]:
    canned_server = CannedServer(answers)
    server = await asyncio.start_server(canned_server.handle, "127.0.0.1", 0)
    canned_server.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield canned_server


class CuttingProxy:
    """Passes bytes to `port`, and cuts the n-th connection after `cuts[n]` bytes to the client.

    Connections beyond `cuts` are left alone.
    """

    def __init__(self, port: int, cuts: Sequence[int]) -> None:
        self._port = port
        self._cuts = list(cuts)
        self._connections: set[asyncio.Task[None]] = set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._handle(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def end(self) -> None:
        """Of every connection, whoever still reads."""
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = self._cuts.pop(0) if self._cuts else None
        upstream, up_writer = await asyncio.open_connection("127.0.0.1", self._port)
        sending = asyncio.create_task(_pass_on(reader, up_writer))
        try:
            while chunk := await upstream.read(1024 if left is None else min(left, 1024)):
                writer.write(chunk)
                await writer.drain()
                if left is not None:
                    left -= len(chunk)
                    if left <= 0:
                        writer.transport.abort()
                        return
        except ConnectionError:
            pass
        finally:
            sending.cancel()
            up_writer.transport.abort()
            writer.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until either hangs up; a client that has gone takes its connection to the server with it."""
    try:
        while chunk := await reader.read(4096):
            writer.write(chunk)
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()


@asynccontextmanager
async def cutting(url: str, cuts: Sequence[int]) -> AsyncGenerator[str]:
    """The address of a proxy before the server at `url`."""
    proxy = CuttingProxy(int(url.rpartition(":")[2]), cuts)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    try:
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        await proxy.end()
