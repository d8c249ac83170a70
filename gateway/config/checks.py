"""What a configuration may not say although each value alone is of its kind."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway.addresses import is_loopback, is_network
from gateway.errors import ConfigError
from gateway.policies.resolve import KINDS, resolve_policy
from protocol.errors import RequestError
from protocol.refusals import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from protocol.requests import PolicySpec

_HOST = re.compile(r"[a-z0-9._-]+")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def check_profiles(
    own: Mapping[str, PolicySpec], profiles: Mapping[str, PolicySpec], default: str
) -> None:
    """`own`: those of the configuration; `profiles`: all there are. Raises ConfigError."""
    for name, spec in own.items():
        if name in KINDS or ":" in name or not name:
            raise ConfigError(
                f"policies.profiles: {name!r} cannot name a profile; "
                f"{', '.join(KINDS)} and names with ':' are policies already"
            )
        try:
            resolve_policy(spec, profiles, default)
        except RequestError as error:
            raise ConfigError(f"policies.profiles.{name}: {error.message}") from error
    if default not in profiles:
        raise ConfigError(
            f"policies.default: unknown profile {default!r}; "
            f"allowed are {', '.join(sorted(profiles))}"
        )


def check_names(origins: Iterable[str], hosts: Iterable[str], networks: Iterable[str]) -> None:
    """Origins and hosts that could never match, and networks that are none: ConfigError."""
    for origin in origins:
        if origin not in ("*", "null") and origin != (usual := _origin_of(origin)):
            raise ConfigError(
                f'server.allowed_origins: {quoted(origin)} matches no page; write "*" or what the '
                f"browser sends, scheme://host[:port] in lower case, such as {quoted(usual)}"
            )
    for host in hosts:
        if host != "*" and not _HOST.fullmatch(host) and not is_network(host):
            raise ConfigError(
                f'server.allowed_hosts: {quoted(host)} matches no request; write "*" or a name or '
                'address alone in lower case, without scheme or port, such as "gateway.example"'
            )
    for network in networks:
        if not is_network(network):
            raise ConfigError(
                f"limits.exempt_addresses: {quoted(network)} is neither an address nor a network, "
                'such as "10.0.0.0/8"'
            )


def check_tls(certificate: str | None, key: str | None) -> None:
    """Raises ConfigError where one is given without the other."""
    if (certificate is None) != (key is None):
        raise ConfigError("server.tls_certificate: it goes with server.tls_key; give both or none")


def check_shape(pad: int | None, tick_ms: int | None) -> None:
    """Raises ConfigError where one is given without the other."""
    if (pad is None) != (tick_ms is None):
        raise ConfigError("delivery.pad: it goes with delivery.tick_ms; give both or none")


def check_demonstration(names: Iterable[str]) -> None:
    """`names`: under which a gateway that demonstrates is reached. Raises ConfigError."""
    if not all(map(is_loopback, names)):
        raise ConfigError(
            "demonstration.enabled: whoever reaches the page may kill the engine, so server.host "
            "and server.allowed_hosts must be loopback names",
            "demonstration.enabled",
        )


def _origin_of(text: str) -> str:
    """The origin of a URL as a browser writes it (RFC 6454, section 6.2); an example where `text`
    is no URL.
    """
    try:
        url = urlsplit(text if "://" in text else f"https://{text}")
        host, port = url.hostname, url.port
    except ValueError:
        host, port, url = None, None, urlsplit("")
    if not host:
        return "https://app.example"
    shown = f"[{host}]" if ":" in host else host
    if port is None or port == _DEFAULT_PORTS.get(url.scheme):
        return f"{url.scheme}://{shown}"
    return f"{url.scheme}://{shown}:{port}"
