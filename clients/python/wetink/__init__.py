"""Read speculative streams: `async with wetink.stream(url, prompt=…) as s`."""

from protocol.errors import WetinkError
from protocol.events import OffsetUnit
from protocol.requests import Chunk, Draft, Hold, Message, StreamRetract
from wetink.client import Connection, attach, connect, stream
from wetink.errors import (
    ConnectionLost,
    ProtocolViolation,
    RequestRefused,
    StreamFailed,
    Unreachable,
)
from wetink.retry import Retry
from wetink.streams import Stream

__all__ = [
    "Chunk",
    "Connection",
    "ConnectionLost",
    "Draft",
    "Hold",
    "Message",
    "OffsetUnit",
    "ProtocolViolation",
    "RequestRefused",
    "Retry",
    "StreamFailed",
    "StreamRetract",
    "Stream",
    "Unreachable",
    "WetinkError",
    "attach",
    "connect",
    "stream",
]
