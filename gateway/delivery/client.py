"""What one client's address may have at a time, over however many connections."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from protocol.errors import ErrorCode, RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.config import LimitsConfig

IPV6_PREFIX = 64
"""One customer is given a whole /64, so its addresses count as one."""


class Quota:
    """A bounded number of things of one kind; one more is refused."""

    def __init__(self, most: int | None, code: ErrorCode, message: str) -> None:
        """`most`: None for no bound. `message` says what there are too many of."""
        self.taken = 0
        self._most = most
        self._code = code
        self._message = message

    def take(self) -> None:
        """Raises RequestError when there are as many as there may be."""
        if self._most is not None and self.taken >= self._most:
            raise RequestError(self._code, self._message)
        self.taken += 1

    def give(self) -> None:
        """One that was taken is gone."""
        self.taken -= 1


def take_all(quotas: Sequence[Quota]) -> None:
    """Takes one of each or, raising RequestError, none."""
    for index, quota in enumerate(quotas):
        try:
            quota.take()
        except RequestError:
            for taken in quotas[:index]:
                taken.give()
            raise


class Client:
    """One address: the streams it has started that still generate, and what it reads."""

    def __init__(self, streams: int | None, attachments: int | None) -> None:
        self.streams = Quota(
            streams,
            ErrorCode.TOO_MANY_STREAMS,
            f"{streams} streams of this address are generating already; try again when one ends",
        )
        self.attachments = Quota(
            attachments,
            ErrorCode.OVERLOADED,
            f"this address reads {attachments} streams already; detach from one first",
        )


class Clients:
    """The clients by address. One is forgotten when nothing of it is left."""

    def __init__(self, limits: LimitsConfig) -> None:
        self._limits = limits
        self._exempt = [ip_network(each, strict=False) for each in limits.exempt_addresses]
        self._known: WeakValueDictionary[str, Client] = WeakValueDictionary()

    @property
    def known(self) -> int:
        """How many are remembered."""
        return len(self._known)

    def of(self, scope: Mapping[str, Any]) -> Client:
        """The client of a connection, by its ASGI scope."""
        peer = scope.get("client")
        group = None if peer is None else self._group(peer[0])
        if group is None:
            return Client(None, None)
        client = self._known.get(group)
        if client is None:
            limits = self._limits
            client = Client(limits.streams_per_address, limits.attachments_per_address)
            self._known[group] = client
        return client

    def _group(self, host: str) -> str | None:
        """What counts as one client with `host`; None: it is not counted."""
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:  # a Unix socket
            return None
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if any(address in network for network in self._exempt):
            return None
        if isinstance(address, IPv6Address):
            return str(ip_network((address, IPV6_PREFIX), strict=False))
        return str(address)
