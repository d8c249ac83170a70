"""An upstream that says the same text to the same seed, and fails where it is told to.

`python -m tests.upstreams.fake PORT` serves it in a process of its own, which can be killed: it
says half of every answer, and the rest once it has been sent a line.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import socket
import struct
import sys
from collections import deque
from contextlib import asynccontextmanager, suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

WORDS = ["ship", "sea", "灯台", "rope", "harbour", "👩\u200d🚒", "fog", "bell", "née", "tide"]
LENGTH = 24
"""Words of an answer."""


class Kind(StrEnum):
    RESET = "reset"
    STALL = "stall"
    ERROR_500 = "500"
    BUSY = "429"
    TRUNCATED = "truncated"
    MALFORMED = "malformed"
    ERROR_EVENT = "error_event"
    NO_STREAM = "no_stream"
    KILLED = "killed"
    """All its connections are reset at once, as those of a process that is killed."""


class Fault(NamedTuple):
    kind: Kind
    at: int
    """Before which word, where it is one in the middle."""


def whole_text(seed: int) -> str:
    """What is said to a request with this seed."""
    chance = random.Random(seed)
    return "".join(f" {chance.choice(WORDS)}" for _ in range(LENGTH))


class FakeUpstream:
    def __init__(self, faults: deque[Fault | None] | None = None, *, owner: str = "fake") -> None:
        """`faults`: what befalls its requests, one after the other; None: nothing. Several may
        share them.
        """
        self.faults = deque[Fault | None]() if faults is None else faults
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[str] = []
        self.url = ""
        self.retry_after = "0"
        self.owner = owner
        self.connections = 0
        self.models_status = 200
        self.forgets_seeds = False
        self.may_end = asyncio.Event()
        """Until it is set, no answer goes beyond its half."""
        self.may_end.set()
        self.deltas: list[dict[str, Any]] = []
        """What is said to requests with tools, piece by piece, instead of words."""
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._hung_up = asyncio.Event()

    async def listen(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", port)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/v1"

    async def close(self) -> None:
        """Idempotent."""
        assert self._server is not None
        self._server.close()
        self.reset_all()
        while self._writers:
            await self.hung_up()
        await self._server.wait_closed()

    async def hung_up(self) -> None:
        """Returns when the next connection has ended."""
        self._hung_up.clear()
        await self._hung_up.wait()

    def reset_all(self) -> None:
        for writer in list(self._writers):
            _reset(writer)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.connections += 1
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                await self._serve(reader, writer)
        writer.close()
        self._writers.discard(writer)
        self._hung_up.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(
            (
                int(line.partition(":")[2])
                for line in head.splitlines()
                if line.lower().startswith("content-length:")
            ),
            0,
        )
        body = await reader.readexactly(length)
        self.headers.append(head)
        if head.startswith("GET"):
            models = {"data": [{"id": "m", "owned_by": self.owner, "max_model_len": 1000}]}
            _answer(writer, self.models_status, models)
            return
        asked = json.loads(body)
        self.bodies.append(asked)
        fault = self.faults.popleft() if self.faults else None
        await self._play(reader, writer, asked, fault)

    async def _play(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        asked: dict[str, Any],
        fault: Fault | None,
    ) -> None:
        kind = None if fault is None else fault.kind
        if kind is Kind.ERROR_500:
            _answer(writer, 500, {"error": {"message": "a worker died"}})
            return
        if kind is Kind.BUSY:
            _answer(writer, 429, {"error": {"message": "slow down"}}, self.retry_after)
            return
        if kind is Kind.NO_STREAM:
            _answer(writer, 200, {"choices": []})
            return
        _write(
            writer,
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n",
        )
        if "tools" in asked:
            self._call(writer)
            return
        said = _said_before(asked)
        text = whole_text(len(self.bodies) if self.forgets_seeds else asked.get("seed", 0))
        assert text.startswith(said), f"{said!r} is no beginning of {text!r}"
        for number, word in enumerate(_words(text[len(said) :])):
            if fault is not None and number == fault.at and await self._fail(reader, writer, fault):
                return
            if number == LENGTH // 2:
                await self.may_end.wait()
            _chunk(writer, _event(asked, word))
            await writer.drain()
            await asyncio.sleep(0)
        if fault is not None and fault.at >= LENGTH and await self._fail(reader, writer, fault):
            return
        _chunk(writer, _event(asked, None))
        usage = {"prompt_tokens": 3, "completion_tokens": len(_words(text[len(said) :]))}
        _chunk(writer, b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n")
        _chunk(writer, b"data: [DONE]\n\n")
        _write(writer, b"0\r\n\r\n")

    def _call(self, writer: asyncio.StreamWriter) -> None:
        choices: list[dict[str, Any]] = [
            {"index": 0, "delta": delta, "finish_reason": None} for delta in self.deltas
        ]
        choices.append({"index": 0, "delta": {}, "finish_reason": "tool_calls"})
        details = {"reasoning_tokens": 2}
        usage = {"prompt_tokens": 3, "completion_tokens": 9, "completion_tokens_details": details}
        chunks: list[dict[str, Any]] = [{"choices": [each]} for each in choices]
        chunks.append({"choices": [], "usage": usage})
        for chunk in chunks:
            _chunk(writer, b"data: " + json.dumps(chunk).encode() + b"\n\n")
        _chunk(writer, b"data: [DONE]\n\n")
        _write(writer, b"0\r\n\r\n")

    async def _fail(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: Fault
    ) -> bool:
        """Whether that is the end of the answer."""
        match fault.kind:
            case Kind.RESET:
                _reset(writer)
            case Kind.KILLED:
                self.reset_all()
            case Kind.STALL:
                await reader.read()  # until whoever waits has had enough and hangs up
            case Kind.TRUNCATED:
                _write(writer, b'40\r\ndata: {"choices": [{"index": 0, "te')
                await writer.drain()
                writer.close()
            case Kind.MALFORMED:
                _chunk(writer, b'data: {"choices": [{"index": 0, "text": " lie"\n\n')
                return False
            case Kind.ERROR_EVENT:
                _chunk(writer, b'data: {"error": {"message": "out of memory", "code": 500}}\n\n')
                return False
            case _:
                raise AssertionError(fault)
        raise ConnectionResetError


def _said_before(asked: dict[str, Any]) -> str:
    """What of the answer the request brings along."""
    if "prompt" in asked:
        return str(asked["prompt"]).partition("?")[2]
    last = asked["messages"][-1]
    return str(last["content"]) if last["role"] == "assistant" else ""


def _words(text: str) -> list[str]:
    return re.findall(" ?[^ ]+", text)


def _event(asked: dict[str, Any], word: str | None) -> bytes:
    """`word`: None at the end."""
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop" if word is None else None}
    if "prompt" in asked:
        choice["text"] = word or ""
    else:
        choice["delta"] = {} if word is None else {"content": word}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


def _answer(
    writer: asyncio.StreamWriter, status: int, body: object, retry_after: str | None = None
) -> None:
    data = json.dumps(body).encode()
    after = b"" if retry_after is None else b"Retry-After: " + retry_after.encode() + b"\r\n"
    head = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
    _write(writer, head % (status, len(data)) + after + b"\r\n" + data)


def _chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    _write(writer, b"%x\r\n%b\r\n" % (len(data), data))


def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    if writer.transport.is_closing():
        raise ConnectionResetError
    writer.write(data)


def _reset(writer: asyncio.StreamWriter) -> None:
    """RST instead of FIN: what was sent and not read yet is lost with it."""
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@asynccontextmanager
async def fake_upstream(
    faults: deque[Fault | None] | None = None, *, owner: str = "fake"
) -> AsyncGenerator[FakeUpstream]:
    upstream = FakeUpstream(faults, owner=owner)
    await upstream.listen()
    try:
        yield upstream
    finally:
        await upstream.close()


async def _serve_forever(port: int) -> None:
    upstream = FakeUpstream()
    upstream.may_end.clear()
    await upstream.listen(port)
    sys.stdout.write(f"{upstream.url}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.readline)
    upstream.may_end.set()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve_forever(int(sys.argv[1])))
