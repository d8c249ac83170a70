"""What is published: one MessagePack map per frame, as the single part of a ZeroMQ message.

`gateway/backends/vllm/messages.py` reads it; the two change together, and `VERSION` with them.

A frame is worth reading whatever was lost before it: an update says where its text begins, so who
missed something sees that, and knows from where on the text is complete again.
"""

from __future__ import annotations

import re

import msgspec

VERSION = 1
"""Readers ignore frames of another version."""

_JOINED = re.compile(r"wetink-[0-9a-f]{32}")


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """A drafted token, and how many code points of text it completed."""

    id: int
    n: int
    confidence: float | None
    """The chance that it is accepted if all before it are; None: not known yet."""


class Update(msgspec.Struct, frozen=True, kw_only=True):
    """What one request's text is now. Offsets and lengths are in code points."""

    request: str
    """The reader's own name for it (`joined_id`)."""
    at: int
    """Where `text` begins in the request's verified text."""
    text: str
    """Verified since the last update that was published."""
    draft: str
    """Drafted behind it, complete: what was drafted before and is not in it is rejected."""
    pieces: list[Piece]
    """The tokens of `draft`."""
    drafted: int
    """Tokens that were given to verification so far."""
    accepted: int
    steps: int
    """Verification steps so far."""


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """One per step of the engine, and one without updates when nothing happens for a second."""

    v: int
    engine: str
    """Names one life of one engine: another one counts anew."""
    seq: int
    """One more than the frame before it."""
    missed: int
    """Steps the publisher itself had to leave out so far."""
    greedy_only: bool
    """Drafts corrupt the text of requests that sample here (vLLM on a CPU without Triton)."""
    updates: list[Update]


def joined_id(request_id: str) -> str | None:
    """The name that a reader gave a request in `X-Request-Id`, out of vLLM's own id for it
    (`chatcmpl-<name>-<random>`); None for requests that nobody asked to see.
    """
    found = _JOINED.search(request_id)
    return found.group() if found else None
