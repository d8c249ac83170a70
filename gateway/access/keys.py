"""API keys: their form, what is kept of one, and the file they are kept in.

A key is `wetink_<id>_<secret>`. The id names its record, so one hash is computed per check however
many keys there are; the secret has 256 random bits and is kept as an Argon2id hash alone.
"""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from msgspec import Meta

from gateway.access.accounts import Allowance
from gateway.errors import ConfigError
from protocol.refusals import malformed, refusal
from protocol.requests import Shape

HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
"""OWASP's minimum for Argon2id: 19 MiB, some 20 ms. More would protect passwords that people
choose; these secrets cannot be guessed."""
ID_BYTES = 6
SECRET_BYTES = 32
_KEY = re.compile(r"wetink_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
HIGHEST_PRIORITY = 100
OWNER_ONLY = 0o600


class Scope(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What a key's holder may ask for."""

    models: list[str] | None = None
    """None: every model."""
    policies: list[str] | None = None
    """Kinds of policy that may be written out: hold, retract, chunk. None: every kind; but none, if
    `profiles` are given."""
    profiles: list[str] | None = None
    """Named profiles. None: every one; but none, if `policies` are given."""
    priority: Annotated[int, Meta(ge=-HIGHEST_PRIORITY, le=HIGHEST_PRIORITY)] = 0
    """The highest that a request may ask for."""
    monitoring: bool = False
    """Whether it reads `/metrics` and `/v1/upstreams`, and does nothing else."""
    shape: Shape | None = None
    """Of deliveries whose policy has none; None: the configured one, if any."""


class Key(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What is kept of a key."""

    id: Annotated[str, Meta(pattern="^[0-9a-f]{12}$")]
    name: Annotated[str, Meta(min_length=1, max_length=64)]
    """Whose it is, for people."""
    hash: str
    """Argon2id over the secret, in PHC form."""
    created: int
    """Unix time in seconds."""
    scope: Scope = Scope()
    limits: Allowance = Allowance()


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: Annotated[int, Meta(ge=1, le=1)]
    keys: list[Key]


class Presented(NamedTuple):
    """A key as a client shows it."""

    id: str
    secret: str


def parse(text: str) -> Presented | None:
    """None for what cannot be a key."""
    found = _KEY.fullmatch(text)
    return None if found is None else Presented(found.group(1), found.group(2))


def draw(name: str, scope: Scope, limits: Allowance, *, now: int) -> tuple[str, Key]:
    """A new key, as its holder gets it, and what is kept of it. `now`: Unix time in seconds."""
    key_id, secret = secrets.token_hex(ID_BYTES), secrets.token_urlsafe(SECRET_BYTES)
    kept = Key(
        id=key_id, name=name, hash=HASHER.hash(secret), created=now, scope=scope, limits=limits
    )
    return f"wetink_{key_id}_{secret}", kept


def is_secret_of(key: Key, secret: str) -> bool:
    """Takes some 20 ms of one core; compares in constant time."""
    try:
        return HASHER.verify(key.hash, secret)
    except (VerificationError, InvalidHashError):
        return False


def default_path() -> Path:
    """Where keys are kept unless the configuration says otherwise (XDG base directories)."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "wetink" / "keys.json"


def read(path: Path) -> list[Key] | None:
    """The keys of a file; None where there is no file.

    Raises ConfigError for one that cannot be used.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"cannot read the keys in {path}: {error.strerror}") from error
    try:
        raw = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(malformed(error, data, whole=str(path)).message) from error
    try:
        keys = msgspec.convert(raw, _File).keys
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {refusal(error, raw, _File, 'it').message}") from error
    if len({key.id for key in keys}) < len(keys) or len({key.name for key in keys}) < len(keys):
        raise ConfigError(f"{path}: two keys have the same id or name")
    return keys


def write(path: Path, keys: list[Key]) -> None:
    """Replaces the file in one step, readable for its owner alone. Raises ConfigError."""
    data = msgspec.json.format(msgspec.json.encode(_File(version=1, keys=keys)), indent=2) + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(data)
        written = Path(file.name)
        written.chmod(OWNER_ONLY)
        written.replace(path)
    except OSError as error:
        raise ConfigError(f"cannot write the keys to {path}: {error.strerror}") from error
