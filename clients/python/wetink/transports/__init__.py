"""How events reach a stream: SSE over HTTP, or one WebSocket for many streams."""

from wetink.transports.base import Attachment, AttachRequest, Interrupted, Transport
from wetink.transports.sse import SSETransport
from wetink.transports.websocket import WebSocketTransport

__all__ = [
    "AttachRequest",
    "Attachment",
    "Interrupted",
    "SSETransport",
    "Transport",
    "WebSocketTransport",
]
