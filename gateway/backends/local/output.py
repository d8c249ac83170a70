"""What an engine process writes to its standard error becomes part of the gateway's log."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

import msgspec

from engine import frames

if TYPE_CHECKING:
    import asyncio

logger = logging.getLogger("wetink.engine")

MAX_LINE_BYTES = 64 * 1024
"""What is longer comes in several lines."""
_LINE_ENDS = re.compile(rb"[\r\n]+")
_decoder = msgspec.json.Decoder(frames.LogLine)


async def relay(reader: asyncio.StreamReader) -> None:
    """Logs what comes, line by line, until the process has closed its end."""
    rest = b""
    while chunk := await reader.read(MAX_LINE_BYTES):
        *lines, rest = _LINE_ENDS.split(rest + chunk)
        if len(rest) > MAX_LINE_BYTES:
            lines, rest = [*lines, rest], b""
        for line in lines:
            log_line(line)
    log_line(rest)


def log_line(line: bytes) -> None:
    """The engine's own lines keep level and logger; a library's are warnings of the engine."""
    if not line.strip():
        return
    try:
        said = _decoder.decode(line)
    except msgspec.DecodeError:
        logger.warning("%s", line.decode(errors="replace"))
        return
    source = logging.getLogger(said.logger)
    level = logging.getLevelNamesMapping().get(said.level, logging.WARNING)
    fields = {"stream": said.stream, "traceback": said.exception}
    extra = {"fields": {name: value for name, value in fields.items() if value is not None}}
    source.log(level, "%s", said.message, extra=extra)
