"""Under which names the gateway answers.

A hostile page can point its own name at this machine and so reach it from within a browser (DNS
rebinding); the browser then still sends that name as `Host`. It can never send an address.
"""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway.addresses import is_loopback

if TYPE_CHECKING:
    from collections.abc import Sequence

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


class Hosts:
    """The names that `Host` may have.

    `configured`: None on a loopback address allows loopback names alone; elsewhere, if keys are
    needed, every name, as a page has no key; otherwise addresses and this machine's own name.
    """

    def __init__(self, host: str, configured: Sequence[str] | None, *, keys_needed: bool) -> None:
        """`host`: what the gateway listens on."""
        if configured is not None:
            self.names = frozenset(configured)
        elif is_loopback(host):
            self.names = frozenset({*LOOPBACK_NAMES, host})
        elif keys_needed:
            self.names = frozenset({"*"})
        else:
            self.names = frozenset({*LOOPBACK_NAMES, host, socket.gethostname().lower()})
        self._addresses = configured is None and not is_loopback(host)

    def allow(self, header: str) -> bool:
        """`header`: the value of `Host`, with or without a port."""
        name = _name(header)
        return "*" in self.names or name in self.names or (self._addresses and _is_address(name))


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _name(header: str) -> str:
    """ "[::1]:8000" → "::1"."""
    try:
        return (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        return ""
