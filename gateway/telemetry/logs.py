"""The log: every line with the id of its request, for people or as JSON, without what is private.

The standard library's `logging`, because everything that writes here already speaks it (uvicorn,
asyncio, the engine's libraries); another library would only wrap it.

Whatever a line knows besides its message stands in `extra={"fields": {…}}`. Whoever knows a
stream's id can read the stream, so ids are shortened to a fingerprint unless `log.ids` is set:
enough to find the lines that belong together, of no use otherwise.
"""

from __future__ import annotations

import hashlib
import logging
import sys
import time
from typing import TYPE_CHECKING, Any, TextIO, cast

import msgspec

from gateway import request_ids

if TYPE_CHECKING:
    from gateway.config import LogConfig

FINGERPRINT_DIGITS = 12
_SAFE_TEXT = frozenset("\"'= \t\r\n")
"""A value with one of these is quoted in the human format."""
OURS = ("wetink", "engine")
"""What our loggers' names begin with. Libraries are heard from WARNING on, whatever the level: at
DEBUG some log what passes through them, texts included.
"""


def fingerprint(stream_id: str) -> str:
    """Tells streams apart without opening them."""
    return hashlib.sha256(stream_id.encode()).hexdigest()[:FINGERPRINT_DIGITS]


class _Formatter(logging.Formatter):
    def __init__(self, config: LogConfig) -> None:
        super().__init__()
        self._ids = config.ids

    def fields(self, record: logging.LogRecord) -> dict[str, object]:
        """What the line knows besides its message, ids made harmless."""
        fields = dict(cast("dict[str, object]", getattr(record, "fields", {})))
        request = fields.pop("request", None) or request_ids.current()
        stream = fields.pop("stream", None)
        if stream is not None:
            fields = {"stream": stream if self._ids else fingerprint(str(stream)), **fields}
        if request is not None:
            fields = {"request": request, **fields}
        if record.exc_info and record.exc_info[0] is not None:
            fields["traceback"] = self.formatException(record.exc_info)
        return fields


class JsonFormatter(_Formatter):
    """One JSON object per line: time (UTC, RFC 3339), level, logger, message, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self.fields(record),
        }
        return msgspec.json.encode(line).decode()


class HumanFormatter(_Formatter):
    """`2026-01-31T12:00:00.000Z INFO wetink.engine: message key=value`; a traceback behind it."""

    def format(self, record: logging.LogRecord) -> str:
        fields = self.fields(record)
        traceback = fields.pop("traceback", None)
        # A message of several lines would look like several messages.
        message = record.getMessage().replace("\n", "\\n")
        pairs = "".join(f" {name}={_shown(value)}" for name, value in fields.items())
        head = f"{_time(record.created)} {record.levelname} {record.name}: {message}{pairs}"
        return head if traceback is None else f"{head}\n{traceback}"


def configure(config: LogConfig, output: TextIO | None = None) -> None:
    """Everything this process logs goes to `output` (None: standard error) from now on."""
    handler = logging.StreamHandler(sys.stderr if output is None else output)
    handler.setFormatter((JsonFormatter if config.format == "json" else HumanFormatter)(config))
    level = logging.getLevelNamesMapping()[config.level.upper()]
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)
    for name in OURS:
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(True)


def _time(seconds: float) -> str:
    whole = int(seconds)
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
    return f"{moment}.{int((seconds - whole) * 1000):03d}Z"


def _shown(value: object) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return msgspec.json.encode(text).decode() if not text or _SAFE_TEXT & set(text) else text
