"""Tickets: short-lived leave to read one stream, or to open one WebSocket, that fits into a URL.

Browsers cannot give an `EventSource` or a `WebSocket` a header, and a key in a URL ends up in logs.
A ticket is what it grants and an HMAC-SHA-256 over that, so nothing has to be kept of it.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import math
from typing import TYPE_CHECKING

import msgspec

from protocol.errors import ErrorCode, RequestError
from protocol.events import OffsetUnit
from protocol.requests import PolicySpec

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET_BYTES = 32
MOST_CHARACTERS = 2048
"""Longer ones are none of ours."""


class Ticket(
    msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True
):
    """What one grants. It stands in for its owner's key, and falls with it."""

    owner: str
    """Id of the key; "" where none is needed."""
    stream: str | None
    """The one stream that it lets read; None: it opens a WebSocket."""
    policy: PolicySpec | None
    """The one policy that it lets read with; None with a WebSocket, which may have any."""
    offsets: OffsetUnit | None
    """The one unit; None: any."""
    expires_at: int
    """Unix time in seconds."""


class Tickets:
    """Signs and reads tickets."""

    def __init__(self, secret: bytes, wall_clock: Callable[[], float]) -> None:
        """`wall_clock`: Unix time in seconds."""
        self._secret = secret
        self._wall_clock = wall_clock
        self._decoder = msgspec.msgpack.Decoder(Ticket)

    def expiry(self, seconds: float) -> int:
        """When a ticket ends that is good for so long from now on."""
        return math.ceil(self._wall_clock() + seconds)

    def sign(self, ticket: Ticket) -> str:
        granted = _text(msgspec.msgpack.encode(ticket))
        return f"{granted}.{_text(self._signature(granted))}"

    def read(self, text: str) -> Ticket:
        """Raises RequestError (`unauthorized`) for one that is forged, broken or over."""
        granted, _, signature = text[:MOST_CHARACTERS].partition(".")
        expected = _text(self._signature(granted)).encode()
        if not hmac.compare_digest(expected, signature.encode(errors="replace")):
            raise RequestError(
                ErrorCode.UNAUTHORIZED, "this is not a ticket of this gateway", "ticket"
            )
        try:
            ticket = self._decoder.decode(_bytes(granted))
        except (binascii.Error, msgspec.DecodeError):
            raise RequestError(
                ErrorCode.UNAUTHORIZED, "this ticket is of another version", "ticket"
            ) from None
        if self._wall_clock() >= ticket.expires_at:
            raise RequestError(
                ErrorCode.UNAUTHORIZED, "this ticket has expired; ask for another one", "ticket"
            )
        return ticket

    def _signature(self, granted: str) -> bytes:
        return hmac.digest(self._secret, granted.encode(errors="replace"), "sha256")


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
