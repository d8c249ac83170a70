"""Streams: generations, and what is kept of them."""

from gateway.streams.registry import StreamRegistry
from gateway.streams.snapshot import snapshot
from gateway.streams.stream import Stream

__all__ = ["Stream", "StreamRegistry", "snapshot"]
