"""How much a client may send, and for how long, on raw sockets: the answer arrives, and the
connection ends.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from gateway import connections
from tests.server.gateways import PATIENCE_S, hand_served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.server.gateways import Served

BODY_LIMIT = 2000


@pytest.fixture
async def small() -> AsyncIterator[Served]:
    async with hand_served(
        limits__body_bytes=BODY_LIMIT,
        limits__header_bytes=4096,
        limits__headers=20,
        limits__receive_s=0.3,
    ) as running:
        yield running


async def answer_to(served: Served, *pieces: bytes) -> tuple[int, dict[str, Any]]:
    """Writes everything before it reads anything, as a simple client does, and reads to the end."""
    port = int(served.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(PATIENCE_S):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]


def post(*headers: str) -> bytes:
    lines = ("POST /v1/streams HTTP/1.1", "Host: localhost", *headers, "", "")
    return "\r\n".join(lines).encode()


async def test_client_that_writes_first_is_told_that_its_body_is_too_large(small: Served) -> None:
    size = 3 * BODY_LIMIT
    pieces = [b"x" * 500] * (size // 500)
    for _ in range(20):  # a reset is a race
        status, error = await answer_to(small, post(f"Content-Length: {size}"), *pieces)
        assert (status, error["code"]) == (413, "body_too_large")
        chunks = [b"1f4\r\n%b\r\n" % piece for piece in pieces]
        status, error = await answer_to(
            small, post("Transfer-Encoding: chunked", "Connection: close"), *chunks, b"0\r\n\r\n"
        )
        assert (status, error["code"]) == (413, "body_too_large")


async def test_client_that_waits_for_leave_to_send_is_refused_at_once(small: Served) -> None:
    status, error = await answer_to(small, post("Content-Length: 9000", "Expect: 100-continue"))
    assert (status, error["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([post(*(f"X-{n}: y" for n in range(30)))], id="many headers"),
        pytest.param([post("X: " + "y" * 5000)], id="one large header"),
        pytest.param([b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n"], id="long path"),
        pytest.param([post("X: ")[:-4], *[b"y" * 4096] * 12], id="a header without end"),
        pytest.param([b"GET /", *[b"a" * 4096] * 12], id="a path without end"),
    ],
)
async def test_client_is_told_that_its_headers_are_too_large(
    small: Served, pieces: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "LINGER_S", 0.2)
    status, error = await answer_to(small, *pieces)
    assert (status, error["code"]) == (431, "headers_too_large")
    assert "20 headers" in error["message"]
    assert "4096 bytes" in error["message"]


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([], id="nothing"),
        pytest.param([b"\r\n"], id="empty lines"),
        pytest.param([post()[:-2]], id="half the headers"),
        pytest.param([post("Content-Length: 100"), b"{"], id="half a body"),
        pytest.param([post("Transfer-Encoding: chunked"), b"2\r\n{"], id="half a chunk"),
    ],
)
async def test_request_that_never_ends_has_a_deadline(small: Served, pieces: list[bytes]) -> None:
    status, error = await answer_to(small, *pieces)
    assert (status, error["code"]) == (408, "request_timeout")
    assert "0.3 s" in error["message"]


async def test_client_that_speaks_no_http_is_told_so(small: Served) -> None:
    status, error = await answer_to(small, b"\x16\x03\x01 hello\r\n\r\n")
    assert (status, error["message"]) == (400, "this is not an HTTP request")


async def test_stream_lives_on_behind_the_deadline_of_its_request(small: Served) -> None:
    stream = await small.start()
    async with small.read(stream) as reader:
        await reader.next()
        status, _ = await answer_to(small, b"")  # as long as the deadline
        assert status == 408
        await small.all_owed_to(reader)


async def test_connection_that_sends_no_next_request_is_closed() -> None:
    async with hand_served(limits__idle_s=1) as served:
        port = int(served.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(PATIENCE_S):
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert b"connection: close" not in head.lower()
            await reader.read()  # ends when the server closes
        writer.close()
