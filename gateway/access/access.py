"""Decides who a request comes from: by its key, by its ticket, or as anyone where that will do."""

from __future__ import annotations

import asyncio
import hmac
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs

from gateway.access import keys as stored
from gateway.access.accounts import Account, Addresses, Allowance, per_key
from gateway.access.keys import HIGHEST_PRIORITY, Scope
from gateway.access.principal import ANYONE, Holder, Principal
from gateway.access.rules import Rule, rule_for
from gateway.access.tickets import SECRET_BYTES, Ticket, Tickets
from gateway.addresses import is_loopback
from gateway.errors import ConfigError
from protocol.errors import ErrorCode, RequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gateway.access.accounts import AddressAccount
    from gateway.access.keys import Key, Presented
    from gateway.config import AccessConfig, GatewayConfig
    from protocol.events import OffsetUnit
    from protocol.requests import PolicySpec

WAITING_CHECKS = 32
"""Keys that may wait for their hash at a time; it takes some 20 ms of one core."""
DIGEST_KEY_BYTES = 32
_READING = ("GET", "HEAD")


class Issued(NamedTuple):
    ticket: str
    expires_at: int
    """Unix time in seconds."""


class Access:
    """The keys in force and what their holders have going. Made on the running event loop.

    A key's slow hash is computed when it is first presented; afterwards a keyed digest that only
    this process can compute takes its place, and no key is kept in clear.
    """

    def __init__(
        self,
        config: GatewayConfig,
        keys: Sequence[Key] | None,
        *,
        now: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        """`keys`: as `read_keys` gives them. `now`: seconds of any clock; `wall_clock`: Unix time.

        Raises ConfigError when the tickets' secret cannot be read.
        """
        self.keys_needed = are_keys_needed(config, keys)
        self.addresses = Addresses(config.limits, now)
        self._started_with = config
        self._tickets = Tickets(_secret(config.access), wall_clock)
        self._now = now
        self._digest_key = os.urandom(DIGEST_KEY_BYTES)
        self._checks = asyncio.Semaphore(1)
        self._waiting = 0
        self._holders: dict[str, Holder] = {}
        priority = HIGHEST_PRIORITY if is_loopback(config.server.host) else 0
        account = Account("this gateway", Allowance(), now)
        self._anyone = Holder(ANYONE, Scope(priority=priority), account)
        self.change(config, keys)

    def change(self, config: GatewayConfig, keys: Sequence[Key] | None) -> frozenset[str]:
        """Other keys and limits from now on; gives the ids of the keys that are no longer in force.

        Where none was needed one is from the first key on, and that ends what was begun without;
        the door is not opened again before a restart.
        """
        usual = per_key(config.limits)
        self.addresses.change(config.limits)
        in_force = {key.id: key for key in keys or ()}
        gone = frozenset(self._holders.keys() - in_force.keys())
        for key_id in gone:
            self._holders.pop(key_id).revoked = True
        for key_id, key in in_force.items():
            allowance = key.limits.over(usual)
            holder = self._holders.get(key_id)
            if holder is None:
                account = Account("this key", allowance, self._now)
                self._holders[key_id] = Holder(key_id, key.scope, account, key)
                continue
            if holder.key is not None and holder.key.hash != key.hash:
                holder.verified = None
            holder.key, holder.scope = key, key.scope
            holder.account.change(allowance)
        if not self.keys_needed and are_keys_needed(self._started_with, keys):
            self.keys_needed = self._anyone.revoked = True
            gone |= {ANYONE}
        return gone

    async def admit(self, scope: Mapping[str, Any]) -> Principal:
        """The party behind an ASGI scope; counts the request.

        Raises RequestError: `unauthorized`, `forbidden`, `rate_limited`, `overloaded`.
        """
        principal = await self._identify(scope, self.addresses.of(scope))
        principal.require_right(monitoring=rule_for(scope["path"]) is Rule.MONITORING_KEY)
        principal.count_request()
        return principal

    def issue(
        self,
        principal: Principal,
        *,
        stream: str | None = None,
        policy: PolicySpec | None = None,
        offsets: OffsetUnit | None = None,
        ttl_s: float | None = None,
    ) -> Issued:
        """A ticket that stands in for the principal's key.

        Raises RequestError for one that would be good for too long.
        """
        longest = self._started_with.access.longest_ticket_s
        if ttl_s is not None and ttl_s > longest:
            raise RequestError(
                ErrorCode.INVALID_VALUE, f"ttl_s may be at most {longest:g} here", "ttl_s"
            )
        expires_at = self._tickets.expiry(
            self._started_with.access.ticket_s if ttl_s is None else ttl_s
        )
        ticket = Ticket(
            owner=principal.owner,
            stream=stream,
            policy=policy,
            offsets=offsets,
            expires_at=expires_at,
        )
        return Issued(self._tickets.sign(ticket), expires_at)

    async def _identify(self, scope: Mapping[str, Any], address: AddressAccount) -> Principal:
        bearer = _bearer(scope)
        if bearer is not None and self._holders:
            return Principal(await self._holder_of(bearer, address), address)
        text = _ticket_in(scope)
        if text is not None:
            ticket = self._tickets.read(text)
            _require_fit(ticket, scope)
            return Principal(self._owner_of(ticket), address, ticket)
        if self.keys_needed:
            raise RequestError(
                ErrorCode.UNAUTHORIZED,
                "a key is needed here: Authorization: Bearer <key>",
                "Authorization",
            )
        return Principal(self._anyone, address)

    def _owner_of(self, ticket: Ticket) -> Holder:
        if ticket.owner == ANYONE and not self.keys_needed:
            return self._anyone
        holder = self._holders.get(ticket.owner)
        if holder is None:
            raise RequestError(
                ErrorCode.UNAUTHORIZED, "the key behind this ticket is no longer in force", "ticket"
            )
        return holder

    async def _holder_of(self, bearer: str, address: AddressAccount) -> Holder:
        """Raises RequestError; for every wrong key the same."""
        presented = stored.parse(bearer)
        holder = None if presented is None else self._holders.get(presented.id)
        if presented is not None and holder is not None and self._is_known(holder, presented):
            return holder
        # Whoever guesses runs out of guesses; a right key costs none.
        address.failures.take()
        is_right = (
            presented is not None
            and holder is not None
            and holder.verified is None
            and await self._proves(holder, presented)
        )
        if holder is None or not is_right:
            raise RequestError(
                ErrorCode.UNAUTHORIZED, "this key is wrong or no longer in force", "Authorization"
            )
        address.failures.give(1)
        return holder

    def _is_known(self, holder: Holder, presented: Presented) -> bool:
        """Whether it is the very key that was proven before."""
        return holder.verified is not None and hmac.compare_digest(
            holder.verified, self._digest(presented)
        )

    async def _proves(self, holder: Holder, presented: Presented) -> bool:
        """Computes the slow hash, one at a time, beside the event loop."""
        if self._waiting >= WAITING_CHECKS:
            raise RequestError(ErrorCode.OVERLOADED, "too many keys are being checked; try again")
        self._waiting += 1
        try:
            async with holder.verifying, self._checks:
                if holder.verified is not None:  # while this one waited
                    return self._is_known(holder, presented)
                key = holder.key
                assert key is not None
                if not await asyncio.to_thread(stored.is_secret_of, key, presented.secret):
                    return False
                if holder.key is key:  # not changed meanwhile
                    holder.verified = self._digest(presented)
                return not holder.revoked
        finally:
            self._waiting -= 1

    def _digest(self, presented: Presented) -> bytes:
        return hmac.digest(self._digest_key, presented.secret.encode(), "sha256")


def keys_path(config: AccessConfig) -> Path:
    return stored.default_path() if config.keys_file is None else Path(config.keys_file)


def read_keys(config: AccessConfig) -> list[Key] | None:
    """The keys that are configured; None where there is no file and none was named.

    Raises ConfigError.
    """
    path = keys_path(config)
    keys = stored.read(path)
    if keys is None and config.keys_file is not None:
        raise ConfigError(f"access.keys_file: there is no file {path}; {_mend(config)} makes it")
    return keys


def require_guard(config: GatewayConfig, keys: Sequence[Key] | None) -> None:
    """Refuses to begin where nobody could come in, or anybody could.

    Raises ConfigError, which says how to mend it.
    """
    if keys or config.access.allow_anyone:
        return
    mend = f"make a key with {_mend(config.access)}, or let everybody in with --allow-anyone"
    if keys is not None:
        raise ConfigError(f"there is no key in {keys_path(config.access)}: {mend}")
    host = config.server.host
    if not is_loopback(host):
        raise ConfigError(
            f"server.host: whoever reaches {host} could start, read and cancel streams, as no key "
            f"is needed: {mend}"
        )


def are_keys_needed(config: GatewayConfig, keys: Sequence[Key] | None) -> bool:
    """On a loopback address without a file of keys none are."""
    if config.access.allow_anyone:
        return False
    return keys is not None or not is_loopback(config.server.host)


def _mend(config: AccessConfig) -> str:
    file = "" if config.keys_file is None else f" --file {config.keys_file}"
    return f"`wetink keys add NAME{file}`"


def _secret(config: AccessConfig) -> bytes:
    if config.ticket_secret_file is None:
        return os.urandom(SECRET_BYTES)
    try:
        secret = Path(config.ticket_secret_file).read_bytes().strip()
    except OSError as error:
        raise ConfigError(
            f"access.ticket_secret_file: cannot read {config.ticket_secret_file}: {error.strerror}"
        ) from error
    if len(secret) < SECRET_BYTES:
        raise ConfigError(
            f"access.ticket_secret_file: a secret has at least {SECRET_BYTES} bytes; make one with "
            "`openssl rand -base64 32`"
        )
    return secret


def _bearer(scope: Mapping[str, Any]) -> str | None:
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, token = value.decode("latin-1").partition(" ")
            return token.strip() if scheme.lower() == "bearer" else None
    return None


def _ticket_in(scope: Mapping[str, Any]) -> str | None:
    """A ticket in the URL, where tickets are taken."""
    if rule_for(scope["path"]) not in (Rule.KEY_OR_STREAM_TICKET, Rule.KEY_OR_SOCKET_TICKET):
        return None
    given = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    return given.get("ticket", [None])[0]


def _require_fit(ticket: Ticket, scope: Mapping[str, Any]) -> None:
    """Raises RequestError (`forbidden`) for a ticket that is for something else."""
    if rule_for(scope["path"]) is Rule.KEY_OR_SOCKET_TICKET:
        fits, what = ticket.stream is None, "one stream's events"
    else:
        fits = (
            scope["path"] == f"/v1/streams/{ticket.stream}/events" and scope["method"] in _READING
        )
        what = "a WebSocket" if ticket.stream is None else "another stream"
    if not fits:
        raise RequestError(ErrorCode.FORBIDDEN, f"this ticket is for {what}", "ticket")
