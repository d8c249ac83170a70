from __future__ import annotations

import pytest

from gateway.middleware import allowed_hosts_for


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_gateway_on_a_loopback_address_answers_for_no_other_names(host: str) -> None:
    allowed = allowed_hosts_for(host, None)
    assert {"localhost", host} <= set(allowed)
    assert "*" not in allowed


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "gateway.test"])
def test_gateway_on_other_addresses_answers_for_any_name(host: str) -> None:
    assert allowed_hosts_for(host, None) == ("*",)


def test_gateway_answers_for_the_names_it_is_configured_with() -> None:
    assert allowed_hosts_for("127.0.0.1", ["gateway.test"]) == ["gateway.test"]
