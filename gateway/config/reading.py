"""Where the configuration comes from: TOML and variables, as the tree that TOML has."""

from __future__ import annotations

import difflib
import re
import tomllib
from typing import TYPE_CHECKING, Any, cast

import msgspec

from gateway.errors import ConfigError
from protocol.refusals import refusal
from protocol.requests import PolicySpec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ENV_PREFIX = "WETINK_"
KEY_VARIABLE = "WETINK_KEY"
"""A client's; it may stand in the environment that a gateway is started from."""

UPSTREAMS = "upstreams"
"""The one section that there may be several of: only files and the command line have it."""


def read_toml(path: Path) -> dict[str, Any]:
    """Raises ConfigError naming the file."""
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


def from_env(env: Mapping[str, str], whole: type[msgspec.Struct]) -> dict[str, object]:
    """`WETINK_SERVER_PORT=0` → `server.port`; lists are comma-separated. `whole`: all sections.

    Raises ConfigError for a variable that looks like ours and is none.
    """
    known: dict[str, tuple[str, bool]] = {}
    for section in msgspec.structs.fields(whole):
        if section.name == UPSTREAMS:
            continue
        for field in msgspec.structs.fields(cast("type[msgspec.Struct]", type(section.default))):
            if field.name != "profiles":
                key = f"{section.name}.{field.name}"
                is_list = "list" in str(field.type) or "tuple" in str(field.type)
                known[ENV_PREFIX + key.replace(".", "_").upper()] = (key, is_list)
    found: dict[str, object] = {}
    for name, text in env.items():
        if name in known:
            key, is_list = known[name]
            found[key] = [item.strip() for item in text.split(",") if item] if is_list else text
        elif name.startswith(ENV_PREFIX) and name != KEY_VARIABLE and not _KUBERNETES.match(name):
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else "no setting is called so"
            raise ConfigError(f"environment variable {name}: {hint}")
    return found


# What Kubernetes sets in every container beside a service that is called "wetink".
_KUBERNETES = re.compile(r"WETINK_(SERVICE_(HOST|PORT)|PORT(_|$))")


def put(tree: dict[str, Any], key: str, value: object) -> None:
    if key == UPSTREAMS:
        tree[key] = value
        return
    section, _, name = key.partition(".")
    table = tree.setdefault(section, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{section}: a table is needed ([{section}]), not {table!r}")
    table[name] = value


def read_profiles(tree: dict[str, Any]) -> None:
    """Turns the profiles into policies, one by one, so that an error can name its profile."""
    if not isinstance(tree.get("policies"), dict):
        return
    policies = cast("dict[str, object]", tree["policies"])
    if not isinstance(policies.get("profiles"), dict):
        return
    read: dict[str, object] = {}
    for name, raw in cast("dict[str, object]", policies["profiles"]).items():
        try:
            read[name] = msgspec.convert(raw, PolicySpec)
        except msgspec.ValidationError as error:
            refused = refusal(error, raw, PolicySpec, "it")
            raise ConfigError(f"policies.profiles.{name}: {refused.message}") from error
    tree["policies"] = {**policies, "profiles": read}
