"""A server that needs keys, and a few keys."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.access import Allowance
from gateway.access import keys as stored
from gateway.access.keys import Key, Scope
from gateway.access.tickets import Ticket, Tickets
from protocol.requests import Hold
from tests.server.gateways import hand_served

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from tests.server.gateways import Served

NOBODY = f"wetink_{'0' * 12}_{'a' * 43}"
"""It has a key's form, and no record has its id."""
SECRET = b"a secret of thirty-two bytes or more"
"""What these servers sign tickets with."""


class Keys(NamedTuple):
    """Keys as their holders have them; `limited` may do little, `monitor` looks after the gateway.
    All but `revoked` are kept.
    """

    alice: str
    bob: str
    limited: str
    revoked: str
    monitor: str
    kept: list[Key]


def draw_keys() -> Keys:
    """Drawing takes a hash each."""
    alice, alices = stored.draw("alice", Scope(), Allowance(), now=0)
    bob, bobs = stored.draw("bob", Scope(), Allowance(), now=0)
    scope = Scope(models=["other"], profiles=["tts"], policies=["hold"], priority=-5)
    limited, kept = stored.draw("limited", scope, Allowance(streams=1), now=0)
    revoked, _ = stored.draw("revoked", Scope(), Allowance(), now=0)
    monitor, monitors = stored.draw("monitor", Scope(monitoring=True), Allowance(), now=0)
    return Keys(alice, bob, limited, revoked, monitor, [alices, bobs, kept, monitors])


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@asynccontextmanager
async def key_served(keys: Keys, folder: Path, **overrides: Any) -> AsyncGenerator[Served]:
    """A server with these keys; nobody counts as a proxy."""
    file, secret = folder / "keys.json", folder / "secret"
    stored.write(file, keys.kept)
    secret.write_bytes(SECRET)
    settings: dict[str, object] = {
        "access__keys_file": str(file),
        "access__ticket_secret_file": str(secret),
        "limits__exempt_addresses": [],
        **overrides,
    }
    async with hand_served(**settings) as served:
        yield served


def forged_ticket(keys: Keys, stream: str | None, *, age_s: float = 0.0) -> str:
    """A ticket of alice's as the gateway itself would have made it, so long after its end."""
    tickets = Tickets(SECRET, lambda: time.time() - age_s)
    ticket = Ticket(
        owner=keys.kept[0].id,
        stream=stream,
        policy=None if stream is None else Hold(),
        offsets=None,
        expires_at=tickets.expiry(0.0 if age_s else 60.0),
    )
    return tickets.sign(ticket)
