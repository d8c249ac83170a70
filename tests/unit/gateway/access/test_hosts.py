from __future__ import annotations

import socket

import pytest

from gateway.access.hosts import Hosts

REBOUND = "evil.test"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
@pytest.mark.parametrize("keys_needed", [True, False])
def test_gateway_on_a_loopback_address_answers_for_no_other_names(
    host: str, keys_needed: bool
) -> None:
    hosts = Hosts(host, None, keys_needed=keys_needed)
    for name in ("localhost", "LOCALHOST:1", "127.0.0.1:8000", "[::1]:8000"):
        assert hosts.allow(name)
    for name in (REBOUND, "localhost.evil.test", "192.0.2.1", "", "[", "local host"):
        assert not hosts.allow(name), name


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "gateway.test"])
def test_gateway_elsewhere_answers_for_any_name_where_keys_are_needed(host: str) -> None:
    assert Hosts(host, None, keys_needed=True).allow("whatever.test")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "gateway.test"])
def test_gateway_without_keys_answers_for_no_name_that_a_page_can_have(host: str) -> None:
    hosts = Hosts(host, None, keys_needed=False)
    own = socket.gethostname()
    for name in ("192.0.2.7:8000", "[2001:db8::1]:80", "localhost", own, own.upper(), "10.1.2.3"):
        assert hosts.allow(name), name
    assert not hosts.allow(REBOUND)
    assert not hosts.allow("192.0.2.1.evil.test")


def test_gateway_answers_for_the_names_it_is_configured_with() -> None:
    hosts = Hosts("127.0.0.1", ["gateway.test"], keys_needed=False)
    assert hosts.allow("gateway.test:8000")
    assert not hosts.allow("localhost")
    assert Hosts("0.0.0.0", ["*"], keys_needed=False).allow(REBOUND)
