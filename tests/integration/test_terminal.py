"""`wetink stream` as a person runs it: in a terminal, in a pipe, and interrupted."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import signal
import struct
import sys
import termios
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import httpx
import pyte
import pytest

from gateway.backends.base import Verified
from gateway.backends.scripted import BUILT_IN_TRACES, ScriptedBackend, load_traces
from gateway.config import GatewayConfig
from gateway.server import running_server
from tests.unit.wetink.servers import canned, cutting, event, event_stream, opening

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

WETINK = Path(sys.executable).with_name("wetink")
TEXT = "".join(
    step.event.text
    for step in load_traces(BUILT_IN_TRACES)["lighthouse"]
    if isinstance(step.event, Verified)
)
COLUMNS, LINES = 50, 16
TRANSPORTS = pytest.mark.parametrize("transport", ["sse", "ws"])
pytestmark = pytest.mark.timeout(60)


class Ended(NamedTuple):
    status: int
    out: bytes
    err: str


@asynccontextmanager
async def gateway(speed: float = 20.0, repeat: int = 1) -> AsyncGenerator[str]:
    backend = {"backend.kind": "scripted", "backend.speed": speed, "backend.repeat": repeat}
    config = GatewayConfig.load(overrides={"server.port": 0, **backend}, env={})
    async with running_server(config, ScriptedBackend.from_config(config.backend)) as url:
        yield url


async def start(*arguments: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        WETINK,
        "stream",
        "hello",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=pipe,
        stderr=pipe,
    )


async def run(*arguments: str) -> Ended:
    process = await start(*arguments)
    out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out, err.decode())


async def run_in_terminal(*arguments: str) -> tuple[pyte.Screen, bytes, int]:
    """What the screen shows at the end, everything that was sent to it, and the exit status."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    process = await asyncio.create_subprocess_exec(
        WETINK,
        "stream",
        "hello",
        *arguments,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color"},
    )
    os.close(theirs)
    sent = await asyncio.to_thread(_read_all, ours)
    os.close(ours)
    screen = pyte.Screen(COLUMNS, LINES)
    pyte.ByteStream(screen).feed(sent)
    return screen, sent, await process.wait()


def _read_all(terminal: int) -> bytes:
    """Until the program has closed its side, which Linux reports as an error."""
    sent = b""
    with suppress(OSError):
        while chunk := os.read(terminal, 65536):
            sent += chunk
    return sent


@TRANSPORTS
async def test_terminal_ends_with_the_committed_text_and_a_summary(transport: str) -> None:
    async with gateway() as url:
        options = ("--url", url, "--transport", transport, "--policy", "retract")
        screen, sent, status = await run_in_terminal(*options)
    shown = [row.rstrip() for row in screen.display]
    assert status == 0
    # Up to the emoji sequences, whose width is the terminal's own opinion.
    plain = TEXT[: TEXT.index("👩") - len("keepers like ")]
    wrapped = [plain[i : i + COLUMNS].rstrip() for i in range(0, len(plain), COLUMNS)]
    assert shown[: len(wrapped) - 1] == wrapped[:-1]
    assert '(toudai "light stand"). It is a good name!' in "".join(shown)
    summary = "".join(screen.display)
    for label in ("97 tokens in", "acceptance 57%", "TTFV", "TTC", "NE 0.5", "retractions", "stop"):
        assert label in summary
    assert b"\x1b[2m" in sent
    assert b"\x1b[0;9;31m" in sent


@pytest.mark.parametrize("policy", ["hold", "chunk:sentence"])
async def test_terminal_never_shows_tentative_text_under_a_policy_without(policy: str) -> None:
    async with gateway() as url:
        screen, sent, _ = await run_in_terminal("--url", url, "--policy", policy)
    assert b"\x1b[2m" not in sent
    assert "NE 0.000" in "".join(screen.display)


@TRANSPORTS
async def test_pipe_gets_the_committed_text_and_one_newline(transport: str) -> None:
    async with gateway() as url:
        ended = await run("--url", url, "--transport", transport, "--policy", "retract")
    assert ended.status == 0
    assert ended.out.decode() == TEXT + "\n"
    assert ended.err.startswith("97 tokens in ")
    assert ended.err.count("\n") == 1


async def test_json_prints_every_event_on_a_line() -> None:
    async with gateway() as url:
        ended = await run("--url", url, "--json", "--policy", "retract")
    events = [json.loads(line) for line in ended.out.splitlines()]
    assert [events[0]["type"], events[-1]["type"]] == ["open", "finish"]
    assert "".join(e["text"] for e in events if e["type"] == "commit") == TEXT
    assert any("retract" in e for e in events)


@TRANSPORTS
async def test_interrupt_cancels_on_the_server_too(transport: str) -> None:
    async with gateway(speed=1.0, repeat=100) as url, httpx.AsyncClient() as http:
        process = await start("--url", url, "--transport", transport, "--json")
        assert process.stdout is not None
        opened = json.loads(await process.stdout.readline())
        await process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = await process.communicate()
        snapshot = (await http.get(f"{url}/v1/streams/{opened['stream']}")).json()
    assert process.returncode == 130
    assert json.loads(out.splitlines()[-1])["reason"] == "cancelled"
    assert snapshot["finish"]["reason"] == "cancelled"
    assert b"tokens in" in err
    assert b"cancelled" in err


async def test_closed_pipe_cancels_on_the_server_too() -> None:
    async with gateway(speed=1.0, repeat=100) as url, httpx.AsyncClient() as http:
        reading, writing = os.pipe()
        process = await asyncio.create_subprocess_exec(
            WETINK,
            "stream",
            "hello",
            "--url",
            url,
            "--json",
            stdout=writing,
            stderr=asyncio.subprocess.PIPE,
        )
        os.close(writing)
        with os.fdopen(reading, "rb") as head:
            opened = json.loads(await asyncio.to_thread(head.readline))
        _, err = await process.communicate()
        snapshot = (await http.get(f"{url}/v1/streams/{opened['stream']}")).json()
    assert process.returncode == 141
    assert b"Traceback" not in err
    assert snapshot["finish"]["reason"] == "cancelled"


@TRANSPORTS
async def test_unreachable_gateway_is_one_line_that_says_what_to_do(transport: str) -> None:
    ended = await run("--url", "http://127.0.0.1:1", "--transport", transport)
    assert ended.status == 1
    assert ended.err.count("\n") == 1
    assert "wetink serve" in ended.err


@TRANSPORTS
async def test_pipe_reader_is_told_when_the_connection_is_lost_and_resumed(transport: str) -> None:
    async with gateway() as url, cutting(url, [2000]) as cut_url:
        ended = await run("--url", cut_url, "--transport", transport)
    assert ended.status == 0
    assert ended.out.decode() == TEXT + "\n"
    assert ended.err.startswith("wetink: connection lost, resuming…\nwetink: resumed\n97 tokens")


async def test_failed_stream_is_one_line() -> None:
    error = event("error", code="engine_failed", message="it broke", retryable=False, at=0)
    async with canned(event_stream(opening(), error)) as server:
        ended = await run("--url", server.url)
    assert (ended.status, ended.err) == (1, "wetink: it broke [engine_failed]\n")


async def test_refused_request_names_the_field() -> None:
    async with gateway() as url:
        policy = await run("--url", url, "--policy", "nonsense")
        tokens = await run("--url", url, "--max-tokens", "-1")
    assert (policy.status, tokens.status) == (2, 2)
    assert 'policy "nonsense" is unknown' in policy.err
    assert "max_tokens" in tokens.err


async def test_request_carries_what_was_asked_for(tmp_path: Path) -> None:
    """A server that keeps the request shows what the options became."""
    prediction = tmp_path / "old.py"
    prediction.write_text("def f(): ...\n", encoding="utf-8")
    bodies: list[bytes] = []

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        bodies.append(await reader.readexactly(length))
        writer.write(b"HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(keep, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        chat = [
            "--system",
            "brief",
            "--max-tokens",
            "5",
            "--temperature",
            "0.5",
            "--seed",
            "3",
            "--stop",
            "a",
            "--stop",
            "b",
        ]
        draft = ["--drafter", "ngram", "--draft-length", "4", "--prediction", str(prediction)]
        await run("--url", url, *chat, *draft)
        await run("--url", url, "--completion", "--policy", "hold")
    first, second = map(json.loads, bodies)
    assert first == {
        "messages": [
            {"role": "system", "content": "brief"},
            {"role": "user", "content": "hello"},
        ],
        "policy": "chat",
        "max_tokens": 5,
        "temperature": 0.5,
        "seed": 3,
        "stop": ["a", "b"],
        "draft": {"drafter": "ngram", "length": 4},
        "prediction": "def f(): ...\n",
    }
    assert second == {"prompt": "hello", "policy": "hold"}
