"""Who a request comes from, and what that one may do. The transports ask here and nowhere else."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from gateway.access.accounts import Account, AddressAccount, Allowance
from gateway.access.keys import HIGHEST_PRIORITY, Scope
from gateway.access.quotas import All, TokenClaim
from gateway.policies.resolve import resolve_policy
from protocol.errors import ErrorCode, RequestError
from protocol.refusals import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.access.keys import Key
    from gateway.access.quotas import Claim
    from gateway.access.tickets import Ticket
    from protocol.events import OffsetUnit
    from protocol.requests import GenerationRequest, PolicySpec, Shape

ANYONE = ""
"""The owner of what was begun without a key."""


class Holder:
    """The holder of a key in force, or everybody without one."""

    def __init__(self, owner: str, scope: Scope, account: Account, key: Key | None = None) -> None:
        self.owner = owner
        """Id of the key."""
        self.scope = scope
        self.account = account
        self.key = key
        self.verified: bytes | None = None
        """A keyed digest of the secret, once the secret was proven by its hash."""
        self.verifying = asyncio.Lock()
        self.revoked = False


class Principal:
    """One request's or one WebSocket's party. It knows of a change of its key at once."""

    def __init__(
        self, holder: Holder, address: AddressAccount, ticket: Ticket | None = None
    ) -> None:
        """`ticket`: what stood in for the key."""
        self.attachments = All(holder.account.attachments, address.attachments)
        """One more is claimed by each attachment."""
        self.connections = holder.account.connections
        """One more for as long as a request is answered, or a WebSocket is open."""
        self._holder = holder
        self._address = address
        self._ticket = ticket

    @classmethod
    def unbounded(cls, now: Callable[[], float]) -> Principal:
        """Somebody without a key, of whom nothing is counted."""
        account = Account("this gateway", Allowance(), now)
        holder = Holder(ANYONE, Scope(priority=HIGHEST_PRIORITY), account)
        return cls(holder, AddressAccount(None, now))

    @property
    def owner(self) -> str:
        """Whose streams these are: id of the key, or `ANYONE`."""
        return self._holder.owner

    @property
    def shape(self) -> Shape | None:
        """Of deliveries to the key's holder that ask for none."""
        return self._holder.scope.shape

    def require_in_force(self) -> None:
        """Raises RequestError (`unauthorized`) once the key has been revoked, or one is needed."""
        if self._holder.revoked:
            is_anyone = self.owner == ANYONE
            message = "a key is needed here now" if is_anyone else "this key has been revoked"
            raise RequestError(ErrorCode.UNAUTHORIZED, message)

    def require_right(self, *, monitoring: bool) -> None:
        """Raises RequestError (`forbidden`) where the key is for something else. `monitoring`:
        whether the request only looks after the gateway. Whoever needs no key may do both.
        """
        if self.owner == ANYONE or self._holder.scope.monitoring == monitoring:
            return
        raise RequestError(
            ErrorCode.FORBIDDEN,
            "this needs a key for monitoring (`wetink keys add NAME --monitoring`)"
            if monitoring
            else "this key is for /metrics and /v1/upstreams only",
            "Authorization",
        )

    def count_request(self) -> None:
        """Raises RequestError (`rate_limited`) for one too many in a minute."""
        ours = self._holder.account.requests
        ours.take()
        try:
            self._address.requests.take()
        except RequestError:
            ours.give(1)
            raise

    def claims(self, request: GenerationRequest) -> list[Claim]:
        """What a generation takes until it ends."""
        return [
            each
            for account in (self._holder.account, self._address)
            for each in (account.streams, TokenClaim(account.tokens, request.max_tokens))
        ]

    def may_use(self, model: str) -> bool:
        models = self._holder.scope.models
        return models is None or model in models

    def priority(self, request: GenerationRequest) -> int:
        """The priority that the request gets: at most its key's.

        Raises RequestError (`forbidden`) where it asks for more.
        """
        highest = self._holder.scope.priority
        if request.priority > max(highest, 0):
            raise RequestError(
                ErrorCode.FORBIDDEN,
                f"priority may be at most {highest} here, not {request.priority}",
                "priority",
            )
        return min(request.priority, highest)

    def policy(
        self, wanted: PolicySpec | str | None, profiles: Mapping[str, PolicySpec], default: str
    ) -> PolicySpec:
        """The policy meant by `wanted`; None means the ticket's, or the profile `default`, or
        where that is not allowed the first that is.

        Raises RequestError naming what is allowed.
        """
        if self._ticket is not None and self._ticket.policy is not None:
            return self._ticket_policy(self._ticket.policy, wanted, profiles, default)
        scope = self._holder.scope
        if scope.policies is None and scope.profiles is None:
            return resolve_policy(wanted, profiles, default)
        allowed = [*(scope.profiles or ()), *(scope.policies or ())]
        if wanted is None and default not in allowed:
            wanted = next((name for name in allowed), default)
        spec = resolve_policy(wanted, profiles, default)
        name = default if wanted is None else wanted
        if not isinstance(name, str) or name not in profiles:
            is_allowed = spec.__struct_config__.tag in (scope.policies or ())
        else:
            is_allowed = name in (scope.profiles or ())
        if not is_allowed:
            raise RequestError(
                ErrorCode.FORBIDDEN,
                f"this key may read with {' and '.join(allowed) or 'no policy at all'} only",
                "policy",
            )
        return spec

    def require_offsets(self, offsets: OffsetUnit) -> None:
        """Raises RequestError (`forbidden`) where a ticket is for another unit."""
        bound = None if self._ticket is None else self._ticket.offsets
        if bound not in (None, offsets):
            raise RequestError(
                ErrorCode.FORBIDDEN, f"this ticket is for offsets={bound} only", "offsets"
            )

    def _ticket_policy(
        self,
        bound: PolicySpec,
        wanted: PolicySpec | str | None,
        profiles: Mapping[str, PolicySpec],
        default: str,
    ) -> PolicySpec:
        if wanted is not None and resolve_policy(wanted, profiles, default) != bound:
            said = quoted(msgspec.json.encode(bound).decode())
            raise RequestError(
                ErrorCode.FORBIDDEN, f"this ticket is for the policy {said} only", "policy"
            )
        return bound
