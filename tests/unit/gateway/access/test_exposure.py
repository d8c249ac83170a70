from __future__ import annotations

import pytest

from gateway.access import exposure
from gateway.access.keys import Key
from gateway.config import GatewayConfig


def keys(*names: str) -> list[Key]:
    return [
        Key(id=f"{number:012x}", name=name, hash="", created=0) for number, name in enumerate(names)
    ]


def said(host: str, found: list[Key] | None, **settings: object) -> str | None:
    named = {key.replace("__", "."): value for key, value in settings.items()}
    config = GatewayConfig.load(overrides={"server.host": host, **named}, env={})
    return exposure(config, found)


def test_gateway_says_nothing_where_only_this_machine_reaches_it() -> None:
    assert said("127.0.0.1", None) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_gateway_says_whom_it_lets_in_on_every_address(host: str) -> None:
    told = said(host, keys("alice", "bob"))
    assert told is not None
    assert f"any address of this machine ({host}), port 8000" in told
    assert "who has a key (alice, bob)" in told
    assert "travel in the clear" in told


def test_gateway_says_that_anybody_may_do_anything() -> None:
    told = said("192.0.2.1", keys("alice"), access__allow_anyone=True)
    assert told is not None
    assert told.startswith(
        "every machine that reaches 192.0.2.1, port 8000, may start streams, and"
    )
    assert "no key is needed" in told
    assert "alice" not in told


def test_gateway_with_tls_says_nothing_of_the_clear() -> None:
    told = said("::", keys("a"), server__tls_certificate="c", server__tls_key="k")
    assert told is not None
    assert "clear" not in told


def test_gateway_names_a_few_of_many_keys() -> None:
    told = said("127.0.0.1", keys(*"abcdefgh"))
    assert told is not None
    assert "only programs of this machine" in told
    assert "(a, b, c, d, e and 3 more)" in told
