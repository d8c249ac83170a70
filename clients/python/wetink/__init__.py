"""Read speculative streams: `async with wetink.stream(url, prompt=…) as s`."""

from protocol.errors import WetinkError
from protocol.events import (
    Commit,
    Error,
    Finish,
    Heartbeat,
    OffsetUnit,
    Open,
    Part,
    Retract,
    ServerEvent,
    Tentative,
)
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
from wetink.streams import Stream, StreamView

__all__ = [
    "Chunk",
    "Commit",
    "Connection",
    "ConnectionLost",
    "Draft",
    "Error",
    "Finish",
    "Heartbeat",
    "Hold",
    "Message",
    "OffsetUnit",
    "Open",
    "Part",
    "ProtocolViolation",
    "RequestRefused",
    "Retract",
    "Retry",
    "ServerEvent",
    "Stream",
    "StreamFailed",
    "StreamRetract",
    "StreamView",
    "Tentative",
    "Unreachable",
    "WetinkError",
    "attach",
    "connect",
    "stream",
]
