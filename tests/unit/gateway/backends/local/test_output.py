from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import msgspec

from engine import frames
from engine.logs import LineFormatter
from gateway.backends.local.output import MAX_LINE_BYTES, relay

if TYPE_CHECKING:
    import pytest


async def relayed(*chunks: bytes) -> None:
    reader = asyncio.StreamReader()
    for chunk in chunks:
        reader.feed_data(chunk)
    reader.feed_eof()
    await relay(reader)


def line(record: logging.LogRecord) -> bytes:
    return LineFormatter().format(record).encode()


async def test_engines_own_line_keeps_level_logger_and_stream(
    caplog: pytest.LogCaptureFixture,
) -> None:
    record = logging.LogRecord("engine.x", logging.ERROR, "x.py", 1, "it %s", ("broke",), None)
    record.stream = "s1"
    await relayed(line(record) + b"\n")
    [logged] = caplog.records
    assert (logged.name, logged.levelname, logged.getMessage()) == ("engine.x", "ERROR", "it broke")
    assert vars(logged)["fields"] == {"stream": "s1"}


async def test_engines_traceback_stays_one_line(caplog: pytest.LogCaptureFixture) -> None:
    said = frames.LogLine(level="ERROR", logger="engine", message="m", exception="a\nb")
    await relayed(msgspec.json.encode(said))
    [logged] = caplog.records
    assert vars(logged)["fields"] == {"traceback": "a\nb"}


async def test_librarys_words_are_warnings_whole_lines_each(
    caplog: pytest.LogCaptureFixture,
) -> None:
    await relayed(b"half a li", b"ne\n\n10%\r20%\r\nnot \xff UTF-8")
    assert caplog.messages == ["half a line", "10%", "20%", "not \ufffd UTF-8"]
    assert {record.levelname for record in caplog.records} == {"WARNING"}


async def test_line_without_an_end_takes_bounded_memory(caplog: pytest.LogCaptureFixture) -> None:
    await relayed(b"x" * (3 * MAX_LINE_BYTES))
    assert sum(map(len, caplog.messages)) == 3 * MAX_LINE_BYTES
    assert len(caplog.messages) > 1
