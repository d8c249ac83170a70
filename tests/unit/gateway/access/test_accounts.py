from __future__ import annotations

import pytest

from gateway.access import accounts
from gateway.access.accounts import Addresses, Allowance, per_key
from gateway.config import LimitsConfig
from protocol.errors import RequestError
from tests.unit.gateway.doubles import FakeClock


def addresses(clock: FakeClock | None = None, **limits: object) -> Addresses:
    chosen = LimitsConfig(streams_per_address=1, **limits)  # pyright: ignore[reportArgumentType]
    return Addresses(chosen, (clock or FakeClock()).now)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ],
)
def test_gateway_counts_by_address(one: str, other: str, same: bool) -> None:
    known = addresses()
    first = known.of({"client": (one, 1)})
    assert (known.of({"client": (other, 2)}) is first) == same


def test_gateway_counts_everybody_where_no_address_is_exempt() -> None:
    known = addresses(exempt_addresses=())
    first = known.of({"client": ("127.0.0.1", 1)})
    assert known.of({"client": ("127.0.0.1", 2)}) is first
    assert known.of({"client": None}) is not first
    assert known.of({"client": ("/run/a.sock", 0)}) is not first


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_gateway_does_not_count_what_comes_through_a_proxy(host: str) -> None:
    account = addresses(requests_per_minute_per_address=1).of({"client": (host, 1)})
    for _ in range(5):
        account.streams.take()
        account.requests.take()
        account.failures.take()


def test_gateway_remembers_an_address_that_comes_back() -> None:
    known = addresses(requests_per_minute_per_address=1)
    known.of({"client": ("192.0.2.1", 1)}).requests.take()
    with pytest.raises(RequestError, match="1 requests per minute"):
        known.of({"client": ("192.0.2.1", 2)}).requests.take()


def test_gateway_forgets_addresses_that_have_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "ADDRESSES_REMEMBERED", 3)
    known = addresses()
    busy = known.of({"client": ("192.0.2.0", 1)})
    busy.connections.take()
    for last in range(1, 200):
        known.of({"client": (f"192.0.2.{last}", 1)})
    assert known.known == 3
    assert known.of({"client": ("192.0.2.0", 1)}) is busy


def test_change_of_limits_holds_for_addresses_that_are_known() -> None:
    known = addresses(requests_per_minute_per_address=1)
    account = known.of({"client": ("192.0.2.1", 1)})
    account.requests.take()
    known.change(LimitsConfig(requests_per_minute_per_address=2, exempt_addresses=()))
    account.requests.take()
    with pytest.raises(RequestError, match="2 requests per minute"):
        account.requests.take()
    assert known.of({"client": ("127.0.0.1", 1)}).requests.most == 2


def test_key_has_its_own_limits_before_the_configured_ones() -> None:
    usual = per_key(LimitsConfig(streams_per_key=5, tokens_per_minute_per_key=100))
    assert Allowance(streams=2).over(usual) == Allowance(
        streams=2, attachments=2048, connections=1024, tokens_per_minute=100
    )
