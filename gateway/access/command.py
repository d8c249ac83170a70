"""`wetink keys`: makes, lists and revokes keys in the file that a gateway reads."""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.access import keys as stored
from gateway.access.accounts import Allowance
from gateway.access.keys import Key, Scope
from gateway.errors import ConfigError
from protocol.refusals import refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

LIMITS = Allowance.__struct_fields__
RELOAD = "A running gateway takes this over on SIGHUP (kill -HUP <its pid>).\n"


def main(argv: Sequence[str]) -> int:
    """Runs one `wetink keys` command line; gives the exit status. Raises ConfigError."""
    options = _parser().parse_args(argv)
    path: Path = options.file or stored.default_path()
    match options.action:
        case "add":
            _add(path, options)
        case "list":
            _list(path)
        case _:
            _revoke(path, options.name)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wetink keys", description="Make, list and revoke the keys of a gateway."
    )
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--file", type=Path, metavar="FILE", help=f"default: {stored.default_path()}"
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="add | list | revoke")
    adding = actions.add_parser("add", parents=[shared], help="make a key and show it, once")
    add = adding.add_argument
    add("name", help="whose it is")
    add("--models", nargs="+", metavar="MODEL", help="default: every model")
    add("--profiles", nargs="+", metavar="NAME", help="default: every one, if no --policies either")
    add(
        "--policies",
        nargs="+",
        metavar="KIND",
        choices=["hold", "retract", "chunk"],
        help="kinds that requests may write out; default: every one, if no --profiles either",
    )
    add("--priority", type=int, default=0, metavar="N", help="the highest to ask for (default: 0)")
    add("--monitoring", action="store_true", help="it reads /metrics and /v1/upstreams, no more")
    add("--shape", type=_shape, metavar="PAD,TICK_MS", help="shape deliveries: bytes, per time")
    add(
        "--limit",
        action="append",
        default=[],
        metavar="NAME=N",
        help=f"in place of the configured one; may be repeated: {', '.join(LIMITS)}",
    )
    actions.add_parser("list", parents=[shared], help="show every key's name and what it may do")
    revoking = actions.add_parser("revoke", parents=[shared], help="delete a key")
    revoking.add_argument("name", help="its name, or its id")
    return parser


def _add(path: Path, options: argparse.Namespace) -> None:
    keys = stored.read(path) or []
    if any(key.name == options.name for key in keys):
        raise ConfigError(f"there is a key called {options.name!r} already; revoke it first")
    scope = {name: getattr(options, name) for name in Scope.__struct_fields__}
    text, key = stored.draw(
        options.name,
        _checked(scope, Scope, "--"),
        _checked(_limits(options.limit), Allowance, "--limit "),
        now=int(time.time()),
    )
    # Read back as a gateway will read it, so that nothing is written that it would refuse.
    stored.write(path, [*keys, _checked(msgspec.to_builtins(key), Key, "")])
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
    sys.stderr.write(f"This is shown once; {path} keeps only its hash.\n{RELOAD}")


def _list(path: Path) -> None:
    keys = stored.read(path) or []
    if not keys:
        sys.stderr.write(f"There are no keys in {path}.\n")
    for key in keys:
        made = datetime.fromtimestamp(key.created, UTC).date().isoformat()
        sys.stdout.write(f"{key.id}  {made}  {key.name}  {_described(key)}\n")


def _revoke(path: Path, name: str) -> None:
    keys = stored.read(path) or []
    left = [key for key in keys if name not in (key.name, key.id)]
    if len(left) == len(keys):
        known = ", ".join(key.name for key in keys) or "none"
        raise ConfigError(f"there is no key {name!r} in {path}; there are: {known}")
    stored.write(path, left)
    sys.stderr.write(RELOAD)


def _shape(given: str) -> dict[str, int]:
    pad, _, tick_ms = given.partition(",")
    return {"pad": int(pad), "tick_ms": int(tick_ms)}


def _limits(given: list[str]) -> dict[str, object]:
    limits: dict[str, object] = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals or name not in LIMITS or not value.isdecimal():
            raise ConfigError(
                f"--limit {item}: it must be NAME=N with NAME one of {', '.join(LIMITS)}"
            )
        limits[name] = int(value)
    return limits


def _checked(raw: Any, wanted: Any, prefix: str) -> Any:
    try:
        return msgspec.convert(raw, wanted)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{prefix}{refusal(error, raw, wanted).message}") from error


def _described(key: Key) -> str:
    """What it may do, where that is not everything."""
    scope, limits = msgspec.to_builtins(key.scope), msgspec.to_builtins(key.limits)
    if key.scope.shape is not None:
        scope["shape"] = [str(key.scope.shape.pad), str(key.scope.shape.tick_ms)]
    words = [
        name if value is True else f"{name}={','.join(value) if isinstance(value, list) else value}"  # pyright: ignore[reportUnknownArgumentType]
        for name, value in {**scope, **limits}.items()
    ]
    return " ".join(words) or "everything"
