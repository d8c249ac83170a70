"""What vLLM's plugin publishes, as `integrations/vllm/wetink_vllm/messages.py` defines it."""

from __future__ import annotations

import msgspec

VERSION = 1


class Piece(msgspec.Struct, frozen=True, array_like=True):
    id: int
    n: int
    confidence: float | None


class Update(msgspec.Struct, frozen=True, kw_only=True):
    """What one request's text is now. Offsets and lengths are in code points."""

    request: str
    at: int
    text: str
    draft: str
    pieces: list[Piece]
    drafted: int
    accepted: int
    steps: int


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    v: int
    engine: str
    seq: int
    missed: int
    greedy_only: bool
    updates: list[Update]


class _Versioned(msgspec.Struct, frozen=True):
    v: int


class UnknownVersion(Exception):
    """The plugin speaks another version of its protocol."""


_VERSION = msgspec.msgpack.Decoder(_Versioned)
_FRAME = msgspec.msgpack.Decoder(Frame)


def decode(data: bytes) -> Frame:
    """Raises UnknownVersion, or msgspec.DecodeError for what is no frame."""
    version = _VERSION.decode(data).v
    if version != VERSION:
        raise UnknownVersion(f"version {version} of its protocol; this gateway knows {VERSION}")
    return _FRAME.decode(data)
