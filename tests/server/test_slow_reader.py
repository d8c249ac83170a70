"""A reader who does not read: bounded in memory, told why, and able to go on."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway.backends.base import Finished, Verified
from protocol.codec import decode_event_json
from protocol.events import Commit, Error, Open
from protocol.sse import SSEParser
from tests.server.gateways import PATIENCE_S, hand_served

if TYPE_CHECKING:
    from tests.server.gateways import Served

PIECE = "0123456789abcdef" * 4096
PIECES = 160
"""10 MB in all: more than twice what the kernel buffers between two sockets of one machine."""


class Sleeper:
    """A client that asks and then does not read."""

    def __init__(self) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.setblocking(False)

    async def ask(self, served: Served, path: str) -> None:
        url = urlsplit(served.url)
        loop = asyncio.get_running_loop()
        assert url.port is not None
        await loop.sock_connect(self.socket, ("127.0.0.1", url.port))
        request = f"GET {path} HTTP/1.1\r\nHost: {url.netloc}\r\nConnection: close\r\n\r\n"
        await loop.sock_sendall(self.socket, request.encode())

    async def wake_up(self) -> bytes:
        """Everything up to the end of the connection, without HTTP's chunk framing."""
        loop = asyncio.get_running_loop()
        raw = bytearray()
        while piece := await asyncio.wait_for(loop.sock_recv(self.socket, 1 << 20), PATIENCE_S):
            raw += piece
        self.socket.close()
        _, _, body = bytes(raw).partition(b"\r\n\r\n")
        return unchunked(body)


def unchunked(body: bytes) -> bytes:
    pieces: list[bytes] = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        pieces.append(rest[:length])
        body = rest[length + 2 :]
    return b"".join(pieces)


async def test_reader_who_does_not_read_is_ended_and_can_resume() -> None:
    async with hand_served(limits__unsent_bytes=4 * len(PIECE)) as served:
        stream = await served.start()
        sleeper = Sleeper()
        await sleeper.ask(served, f"/v1/streams/{stream}/events?policy=hold")
        async with served.read(stream, policy="hold") as healthy:
            await healthy.next()
            for _ in range(PIECES):
                served.backend.say(Verified(PIECE))
                # The reader who reads is not held up by the one who does not.
                assert isinstance((await healthy.next()).event, Commit)
        parser = SSEParser()
        found = parser.feed(await sleeper.wake_up())
        events = [decode_event_json(event.data) for event in found]
        assert isinstance(events[0], Open)
        commits = [event for event in events if isinstance(event, Commit)]
        error = events[-1]
        assert isinstance(error, Error)
        assert (error.code, error.retryable) == ("slow_reader", True)
        received = sum(len(commit.text) for commit in commits)
        assert error.at == received
        # What the kernel took, and no more: the gateway kept nothing for this reader.
        assert received < PIECES * len(PIECE) / 2
        served.backend.say(Finished("stop"))
        async with served.read(stream, policy="hold", cursor=found[-1].id or "") as again:
            rest = [event for event, _ in await again.to_end()]
        commit = rest[1]
        assert isinstance(commit, Commit)
        assert commit.at == received
        assert received + len(commit.text) == PIECES * len(PIECE)


async def test_connection_that_stalls_for_good_is_cut() -> None:
    async with hand_served(limits__unsent_bytes=4 * len(PIECE)) as served:
        stream = await served.start()
        sleeper = Sleeper()
        await sleeper.ask(served, f"/v1/streams/{stream}/events?policy=hold")
        async with served.read(stream, policy="hold") as healthy:
            await healthy.next()
            for _ in range(PIECES):
                served.backend.say(Verified(PIECE))
                await healthy.next()
            attachments = (await served.snapshot(stream))["attachments"]
            assert len(attachments) == 2
            served.clock.advance(200.0)
            while len(attachments) == 2:
                attachments = (await served.snapshot(stream))["attachments"]
        sleeper.socket.close()
