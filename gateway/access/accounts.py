"""What a party has at a time and has used lately: one account per key and one per address."""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.access.quotas import Bucket, Quota
from gateway.config import Positive
from protocol.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.config import LimitsConfig

IPV6_PREFIX = 64
"""One customer is given a whole /64, so its addresses count as one."""
ADDRESSES_REMEMBERED = 65_536
"""Whoever sends from more addresses than that is no longer slowed down by address."""


class Allowance(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Limits of one party; None: no bound, or in a key's record the configured one."""

    streams: Positive | None = None
    """Generating at once."""
    attachments: Positive | None = None
    connections: Positive | None = None
    requests_per_minute: Positive | None = None
    tokens_per_minute: Positive | None = None
    """Of prompts and answers together."""

    def over(self, usual: Allowance) -> Allowance:
        """These limits, and the `usual` ones where there is none."""
        own = {name: value for name, value in msgspec.structs.asdict(self).items() if value}
        return msgspec.structs.replace(usual, **own)


def per_key(limits: LimitsConfig) -> Allowance:
    return Allowance(
        streams=limits.streams_per_key,
        attachments=limits.attachments_per_key,
        connections=limits.connections_per_key,
        requests_per_minute=limits.requests_per_minute_per_key,
        tokens_per_minute=limits.tokens_per_minute_per_key,
    )


def per_address(limits: LimitsConfig) -> Allowance:
    return Allowance(
        streams=limits.streams_per_address,
        attachments=limits.attachments_per_address,
        connections=limits.connections_per_address,
        requests_per_minute=limits.requests_per_minute_per_address,
        tokens_per_minute=limits.tokens_per_minute_per_address,
    )


class Account:
    """One key, or one address: what it has at a time, and what it has used in the last minute."""

    def __init__(self, whose: str, allowance: Allowance, now: Callable[[], float]) -> None:
        """`whose`: "this key"."""
        self.streams = Quota(
            None,
            ErrorCode.TOO_MANY_STREAMS,
            f"{{most}} streams of {whose} are generating already; try again when one ends",
        )
        self.attachments = Quota(
            None,
            ErrorCode.OVERLOADED,
            f"{whose} reads {{most}} streams already; detach from one first",
        )
        self.connections = Quota(
            None,
            ErrorCode.TOO_MANY_CONNECTIONS,
            f"{whose} has {{most}} requests and WebSockets open already; close one first",
        )
        self.requests = Bucket(None, f"{whose} may send {{most}} requests per minute", now)
        self.tokens = Bucket(
            None,
            f"{whose} may use {{most}} tokens per minute; max_tokens of a running stream count "
            "until it ends",
            now,
        )
        self.change(allowance)

    def change(self, allowance: Allowance) -> None:
        """Other limits from now on; what is taken stays taken."""
        self.streams.most = allowance.streams
        self.attachments.most = allowance.attachments
        self.connections.most = allowance.connections
        self.requests.change(allowance.requests_per_minute)
        self.tokens.change(allowance.tokens_per_minute)


class AddressAccount(Account):
    """An address may also fail to prove a key only so often."""

    def __init__(self, limits: LimitsConfig | None, now: Callable[[], float]) -> None:
        """`limits`: None for none, and for an address that is not counted."""
        self.failures = Bucket(
            None, "this address has sent too many wrong keys; at most {most} per minute", now
        )
        super().__init__("this address", Allowance(), now)
        if limits is not None:
            self.change_limits(limits)

    def change_limits(self, limits: LimitsConfig) -> None:
        self.change(per_address(limits))
        self.failures.change(limits.wrong_keys_per_minute_per_address)


class Addresses:
    """The accounts by address, at most `ADDRESSES_REMEMBERED` of them; what is forgotten first is
    the one that was seen last the longest ago and has nothing open.
    """

    def __init__(self, limits: LimitsConfig, now: Callable[[], float]) -> None:
        self._now = now
        self._known: OrderedDict[str, AddressAccount] = OrderedDict()
        self._uncounted = AddressAccount(None, now)
        self.change(limits)

    @property
    def known(self) -> int:
        """How many are remembered."""
        return len(self._known)

    def change(self, limits: LimitsConfig) -> None:
        """Other limits from now on."""
        self._limits = limits
        self._exempt = [ip_network(each, strict=False) for each in limits.exempt_addresses]
        for account in self._known.values():
            account.change_limits(limits)

    def of(self, scope: Mapping[str, Any]) -> AddressAccount:
        """The account of a connection's peer, by its ASGI scope."""
        peer = scope.get("client")
        group = None if peer is None else self._group(peer[0])
        if group is None:
            return self._uncounted
        account = self._known.get(group)
        if account is None:
            self._forget_one_too_many()
            account = self._known[group] = AddressAccount(self._limits, self._now)
        self._known.move_to_end(group)
        return account

    def _forget_one_too_many(self) -> None:
        if len(self._known) < ADDRESSES_REMEMBERED:
            return
        # Those with something open are few: connections are bounded.
        oldest = next((g for g, a in self._known.items() if not a.connections.taken), None)
        if oldest is not None:
            del self._known[oldest]

    def _group(self, host: str) -> str | None:
        """What counts as one party with `host`; None: it is not counted."""
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
