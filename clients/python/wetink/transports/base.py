"""What a stream needs from a transport, and nothing about how it is done."""

from __future__ import annotations

from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

import msgspec

from protocol.errors import ErrorCode, WetinkError
from protocol.events import IncludeItem, OffsetUnit, ServerEvent
from protocol.requests import GenerationRequest, PolicySpec
from wetink.errors import RequestRefused

IDLE_TIMEOUT_S = 45.0
"""A server sends a heartbeat about every 15 s; after three missed ones the connection is dead."""

CONNECT_TIMEOUT_S = 10.0
_SECURE = {"http": False, "ws": False, "https": True, "wss": True}

RETRYABLE_REFUSALS: frozenset[str] = frozenset(
    {
        ErrorCode.TOO_MANY_STREAMS,
        ErrorCode.TOO_MANY_CONNECTIONS,
        ErrorCode.RATE_LIMITED,
        ErrorCode.OVERLOADED,
        ErrorCode.ENGINE_UNAVAILABLE,
        ErrorCode.SHUTTING_DOWN,
        ErrorCode.SLOW_READER,
        ErrorCode.ALREADY_ATTACHED,
        ErrorCode.INTERNAL,
    }
)
"""Refusals of a *resume* that pass with time. `already_attached`: the server has not yet noticed
that the connection this one replaces is gone."""


class Interrupted(WetinkError):
    """The transport ended, or never began, without `finish` or `error`.

    `retry_after`: seconds the server asked to wait, where it did.
    `unreachable`: no request can have reached the server.
    """

    def __init__(
        self, message: str, *, retry_after: float | None = None, unreachable: bool = False
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.unreachable = unreachable


class AttachRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Which stream, from where on (None: from the beginning), and how it shall be shown."""

    stream: str
    cursor: str | None = None
    policy: PolicySpec | str | None = None
    offsets: OffsetUnit = OffsetUnit.CODEPOINT
    include: list[IncludeItem] = []


class Address(NamedTuple):
    """A gateway's root: "http://127.0.0.1:8000", "wss://host/prefix", "host:8000" for http."""

    secure: bool
    rest: str

    @classmethod
    def parse(cls, url: str) -> Address:
        """Raises RequestRefused."""
        given = url if "://" in url else f"http://{url}"
        scheme, _, rest = given.rstrip("/").partition("://")
        if scheme not in _SECURE or not _has_host(rest):
            raise RequestRefused(
                ErrorCode.INVALID_VALUE, f"not an http(s) or ws(s) address: {url!r}", "url"
            )
        return cls(_SECURE[scheme], rest)

    @property
    def http(self) -> str:
        return f"{'https' if self.secure else 'http'}://{self.rest}"

    @property
    def websocket(self) -> str:
        return f"{'wss' if self.secure else 'ws'}://{self.rest}"


def _has_host(rest: str) -> bool:
    try:
        parts = urlsplit(f"//{rest}")
        return bool(parts.hostname) and (parts.port or 0) >= 0  # `port` refuses what is none
    except ValueError:
        return False


class Attachment(Protocol):
    """One reader's connection to one stream."""

    async def receive(self) -> ServerEvent:
        """The next event. Raises `Interrupted` when the transport ends, `ProtocolViolation` when it
        carries something else than events. Not called again after `finish` or `error`.
        """
        ...

    async def aclose(self) -> None:
        """Stops reading; the generation goes on. Idempotent."""
        ...


class Transport(Protocol):
    """Raises `RequestRefused` for a request that cannot be served, `Interrupted` otherwise."""

    async def start(self, request: GenerationRequest) -> Attachment: ...

    async def attach(self, request: AttachRequest) -> Attachment | None:
        """None: nothing follows, as the cursor says that `finish` was received."""
        ...

    async def cancel(self, stream: str) -> None:
        """Ends the generation. Idempotent, and fine for a stream that is already gone."""
        ...

    async def acknowledge(self, stream: str, part: int, at: int) -> bool:
        """Says how far a reader has shown, spoken or accepted the text. False where nobody could be
        told.
        """
        ...

    async def aclose(self) -> None: ...
