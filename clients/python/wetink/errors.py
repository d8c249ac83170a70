"""Exceptions of the client library, by whose fault.

`protocol.errors.WetinkError` is the base of them all. Their `code` is the protocol's error code
(SPEC section 9) as a string, so that a newer server's codes pass through.
"""

from __future__ import annotations

from protocol.errors import WetinkError


class RequestRefused(WetinkError):
    """The request cannot be served as it is. Nothing was generated, and a retry at once would say
    the same.

    `param` is a dotted path into the request ("policy.unit"), or None. `retry_after_s`: after how
    many seconds it may be served all the same, where the server said so.
    """

    def __init__(
        self,
        code: str,
        message: str,
        param: str | None = None,
        *,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"{message} [{code}]" if param is None else f"{message} [{code}: {param}]")
        self.code = code
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s


class StreamFailed(WetinkError):
    """The stream cannot be read to its end. Committed text up to `at` stands, it is not complete.

    `retryable`: the same request may succeed if it is repeated; with the stream's `seed` its text
    begins as this one does.
    """

    def __init__(self, code: str, message: str, at: int, *, retryable: bool = False) -> None:
        super().__init__(f"{message} [{code}]")
        self.code = code
        self.message = message
        self.at = at
        self.retryable = retryable


class ProtocolViolation(WetinkError):
    """The server sent what the protocol forbids; nothing after it can be trusted."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{message} [{code}]")
        self.code = code
        self.message = message


class ConnectionLost(WetinkError):
    """The stream was interrupted and could not be resumed within the allowed attempts.

    The stream's `cursor` is where `wetink.attach` can go on later.
    """


class VoiceUnavailable(WetinkError):
    """There is no such voice here, or it cannot speak."""


class Unreachable(ConnectionLost):
    """Nobody answers at the server's address, so nothing was started."""
