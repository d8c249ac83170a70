"""Says whom a gateway lets in, for whoever starts it."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from gateway.addresses import is_loopback

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.access.keys import Key
    from gateway.config import GatewayConfig

NAMES_SHOWN = 5


def exposure(config: GatewayConfig, keys: Sequence[Key] | None) -> str | None:
    """What listening there means and who may use the gateway; None where it is only programs of
    this machine, and no key is needed.

    `config` and `keys` have passed `require_guard`.
    """
    server = config.server
    anyone = config.access.allow_anyone or (keys is None and is_loopback(server.host))
    if is_loopback(server.host):
        return None if anyone else f"only programs of this machine reach {server.host}; {_by(keys)}"
    reached = f"every machine that reaches {_address(server.host)}, port {server.port},"
    if anyone:
        does = "may start streams, and read and cancel those of others: no key is needed"
    else:
        does = f"may ask, not only programs of this one; {_by(keys)}"
    clear = "" if server.tls_certificate else "; without TLS keys and texts travel in the clear"
    return f"{reached} {does}{clear}"


def _by(keys: Sequence[Key] | None) -> str:
    names = [key.name for key in keys or ()]
    more = "" if len(names) <= NAMES_SHOWN else f" and {len(names) - NAMES_SHOWN} more"
    shown = ", ".join(names[:NAMES_SHOWN])
    return f"let in is who has a key ({shown}{more}); pages and probes need none"


def _address(host: str) -> str:
    try:
        unspecified = ip_address(host).is_unspecified
    except ValueError:
        unspecified = False
    return f"any address of this machine ({host})" if unspecified else host
