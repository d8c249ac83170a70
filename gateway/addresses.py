"""What can be said of an address by its looks."""

from __future__ import annotations

from ipaddress import ip_address, ip_network


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_network(text: str) -> bool:
    """An address is one too."""
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True
