"""A server as if it were far away and slow: bytes to it pass at once, bytes from it do not."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

PIECE_BYTES = 256
"""About one event of a stream."""


@asynccontextmanager
async def slowed(
    url: str, *, first_s: float, piece_s: float, piece_bytes: int = PIECE_BYTES
) -> AsyncGenerator[str]:
    """Its URL. `first_s`: how much longer each connection's first answer takes; `piece_s`: how long
    each of the pieces of at most `piece_bytes` takes that answers are cut into.
    """
    there = urlsplit(url)
    connections: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        answers, asks = await asyncio.open_connection(there.hostname, there.port)
        asking = asyncio.create_task(_pass(reader, asks, 0.0, 0.0, piece_bytes))
        try:
            with suppress(asyncio.CancelledError):  # asyncio's streams would report it as an error
                await _pass(answers, writer, first_s, piece_s, piece_bytes)
        finally:
            asking.cancel()
            asks.close()
            writer.close()
            connections.discard(task)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield urlunsplit(there._replace(netloc=f"{host}:{port}"))
    finally:
        server.close()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


async def _pass(
    source: asyncio.StreamReader,
    target: asyncio.StreamWriter,
    first_s: float,
    piece_s: float,
    piece_bytes: int,
) -> None:
    wait_s = first_s
    with suppress(ConnectionError):
        while piece := await source.read(piece_bytes):
            await asyncio.sleep(wait_s)
            target.write(piece)
            await target.drain()
            wait_s = piece_s
