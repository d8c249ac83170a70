from __future__ import annotations

import pytest

from gateway.config import LimitsConfig
from gateway.delivery import Clients


def clients(**limits: object) -> Clients:
    return Clients(LimitsConfig(streams_per_address=1, **limits))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("127.0.0.1", "127.0.0.1", False),
        ("::1", "::1", False),
    ],
)
def test_gateway_counts_by_address_and_not_behind_a_proxy(one: str, other: str, same: bool) -> None:
    known = clients()
    first = known.of({"client": (one, 1)})
    assert (known.of({"client": (other, 2)}) is first) == same


def test_gateway_counts_everybody_where_no_address_is_exempt() -> None:
    known = clients(exempt_addresses=())
    first = known.of({"client": ("127.0.0.1", 1)})
    assert known.of({"client": ("127.0.0.1", 2)}) is first
    assert known.of({"client": None}) is not first
    assert known.of({"client": ("/run/a.sock", 0)}) is not known.of({"client": ("/run/a.sock", 0)})


def test_gateway_forgets_a_client_of_which_nothing_is_left() -> None:
    known = clients()
    for last in range(200):
        known.of({"client": (f"192.0.2.{last}", 1)})
    assert known.known <= 1
