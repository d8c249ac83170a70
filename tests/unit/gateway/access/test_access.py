"""Deciding who somebody is, without a server around it."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from gateway.access import Access, Allowance, read_keys, require_guard
from gateway.access import access as access_module
from gateway.access import keys as stored
from gateway.access.keys import Key, Scope
from gateway.config import GatewayConfig
from gateway.errors import ConfigError
from protocol.errors import RequestError
from tests.unit.gateway.doubles import FakeClock

if TYPE_CHECKING:
    from pathlib import Path

DRAWN, KEPT = stored.draw("a", Scope(), Allowance(), now=0)
OTHER, OTHERS = stored.draw("b", Scope(), Allowance(), now=0)


def made(*keys: Key, **overrides: object) -> Access:
    config = GatewayConfig.load(overrides=overrides, env={})
    clock = FakeClock()
    return Access(config, list(keys) or None, now=clock.now, wall_clock=lambda: 1000.0)


def scope_of(key: str | None = None, path: str = "/v1/streams", query: str = "") -> dict[str, Any]:
    headers = [] if key is None else [(b"authorization", f"bearer {key}".encode())]
    return {
        "type": "http",
        "method": "GET",
        "path": path,
        "query_string": query.encode(),
        "headers": headers,
        "client": ("192.0.2.1", 1),
    }


class CountingHasher:
    """Stands where the slow hash does, and holds it up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, held: bool = False) -> None:
        self.count = 0
        self.released = threading.Event()
        if not held:
            self.released.set()
        self._real = stored.is_secret_of
        monkeypatch.setattr(stored, "is_secret_of", self)

    def __call__(self, key: Key, secret: str) -> bool:
        self.count += 1
        self.released.wait(20)
        return self._real(key, secret)


async def test_key_pays_the_slow_hash_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hasher = CountingHasher(monkeypatch)
    access = made(KEPT, OTHERS)
    parties = await asyncio.gather(*(access.admit(scope_of(DRAWN)) for _ in range(5)))
    assert {party.owner for party in parties} == {KEPT.id}
    await access.admit(scope_of(DRAWN))
    assert hasher.count == 1
    await access.admit(scope_of(OTHER))
    assert hasher.count == 2


async def test_wrong_secret_of_a_key_that_was_proven_costs_no_hash(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hasher = CountingHasher(monkeypatch)
    access = made(KEPT)
    await access.admit(scope_of(DRAWN))
    for wrong in (DRAWN[:-2] + "zz", f"wetink_{'0' * 12}_{'a' * 43}", "x"):
        with pytest.raises(RequestError, match="wrong or no longer in force"):
            await access.admit(scope_of(wrong))
    assert hasher.count == 1


async def test_no_key_is_kept_in_clear() -> None:
    access = made(KEPT)
    await access.admit(scope_of(DRAWN))
    presented = stored.parse(DRAWN)
    assert presented is not None
    (holder,) = access._holders.values()  # pyright: ignore[reportPrivateUsage]
    kept = repr([vars(holder), vars(access)])
    assert presented.secret not in kept
    assert holder.verified is not None
    assert len(holder.verified) == 32


async def test_keys_wait_for_their_hash_in_a_bounded_queue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(access_module, "WAITING_CHECKS", 3)
    hasher = CountingHasher(monkeypatch, held=True)
    access = made(KEPT)
    waiting = [asyncio.create_task(access.admit(scope_of(DRAWN))) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(RequestError) as refused:
        await access.admit(scope_of(DRAWN))
    assert refused.value.code == "overloaded"
    hasher.released.set()
    assert len(await asyncio.gather(*waiting)) == 3


async def test_key_that_is_revoked_while_it_is_checked_is_not_let_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hasher = CountingHasher(monkeypatch, held=True)
    access = made(KEPT)
    coming = asyncio.create_task(access.admit(scope_of(DRAWN)))
    await asyncio.sleep(0)
    access.change(GatewayConfig(), [])
    hasher.released.set()
    with pytest.raises(RequestError, match="no longer in force"):
        await coming


async def test_change_of_keys_holds_for_parties_that_are_in() -> None:
    access = made(KEPT, OTHERS)
    party, other = await access.admit(scope_of(DRAWN)), await access.admit(scope_of(OTHER))
    narrowed = Key(id=OTHERS.id, name="b", hash=OTHERS.hash, created=0, scope=Scope(models=["m"]))
    assert access.change(GatewayConfig(), [narrowed]) == {KEPT.id}
    with pytest.raises(RequestError, match="has been revoked"):
        party.require_in_force()
    other.require_in_force()
    assert not other.may_use("n")


async def test_key_with_a_new_secret_has_to_prove_it() -> None:
    access = made(KEPT)
    await access.admit(scope_of(DRAWN))
    _, again = stored.draw("a", Scope(), Allowance(), now=0)
    access.change(GatewayConfig(), [Key(id=KEPT.id, name="a", hash=again.hash, created=0)])
    with pytest.raises(RequestError, match="wrong"):
        await access.admit(scope_of(DRAWN))


async def test_ticket_falls_with_its_key() -> None:
    access = made(KEPT)
    party = await access.admit(scope_of(DRAWN))
    query = f"ticket={access.issue(party).ticket}"
    socket = scope_of(path="/v1/ws", query=query)
    assert (await access.admit(socket)).owner == KEPT.id
    access.change(GatewayConfig(), [])
    with pytest.raises(RequestError, match="key behind this ticket"):
        await access.admit(socket)


async def test_ticket_of_anyone_is_none_where_keys_are_needed() -> None:
    anyone = await made().admit(scope_of())
    query = f"ticket={made().issue(anyone).ticket}"
    with pytest.raises(RequestError):
        await made(KEPT).admit(scope_of(path="/v1/ws", query=query))


async def test_ticket_reads_but_changes_nothing() -> None:
    access = made(KEPT)
    party = await access.admit(scope_of(DRAWN))
    issued = access.issue(party, stream="s")
    scope = scope_of(path="/v1/streams/s/events", query=f"ticket={issued.ticket}")
    await access.admit(scope)
    for method in ("POST", "DELETE"):
        with pytest.raises(RequestError, match="another stream"):
            await access.admit({**scope, "method": method})


def guarded(**overrides: object) -> None:
    config = GatewayConfig.load(overrides=overrides, env={})
    require_guard(config, read_keys(config.access))


def test_gateway_begins_where_somebody_was_let_in_on_purpose(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    stored.write(file, [KEPT])
    for host in ("127.0.0.1", "::1", "localhost"):
        guarded(**{"server.host": host})
    guarded(**{"server.host": "0.0.0.0", "access.keys_file": str(file)})
    guarded(**{"server.host": "0.0.0.0", "access.allow_anyone": True})


async def test_keys_in_the_usual_place_are_needed_on_loopback_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert read_keys(GatewayConfig().access) is None
    stored.write(stored.default_path(), [KEPT])
    access = made(*(read_keys(GatewayConfig().access) or []))
    with pytest.raises(RequestError, match="a key is needed here"):
        await access.admit(scope_of())


@pytest.mark.parametrize(
    ("content", "said"), [(None, "cannot read"), (b"too short\n", "at least 32 bytes")]
)
async def test_operator_is_told_of_a_secret_that_cannot_be_used(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=f"access.ticket_secret_file: .*{said}"):
        made(**{"access.ticket_secret_file": str(file)})


async def test_gateways_with_one_secret_take_each_others_tickets(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(b"x" * 32)
    one, other = (made(KEPT, **{"access.ticket_secret_file": str(file)}) for _ in range(2))
    ticket = one.issue(await one.admit(scope_of(DRAWN))).ticket
    socket = scope_of(path="/v1/ws", query=f"ticket={ticket}")
    assert (await other.admit(socket)).owner == KEPT.id
    with pytest.raises(RequestError):
        await made(KEPT).admit(socket)
