"""The engine's log, written so that its gateway can take it apart again."""

from __future__ import annotations

import logging
import sys

import msgspec

from engine.frames import LogLine


class LineFormatter(logging.Formatter):
    """One JSON line per record, tracebacks inside; `extra={"stream": …}` says whom it is about."""

    def format(self, record: logging.LogRecord) -> str:
        line = LogLine(
            level=record.levelname,
            logger=record.name,
            message=record.getMessage(),
            exception=self.formatException(record.exc_info) if record.exc_info else None,
            stream=getattr(record, "stream", None),
        )
        return msgspec.json.encode(line).decode()


def log_to_gateway() -> None:
    """Everything from INFO on goes to standard error, where the gateway reads."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    logging.basicConfig(handlers=[handler], level=logging.INFO)
