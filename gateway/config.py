"""The gateway's configuration: one frozen struct per concern, read once at the edge.

Sources, later ones win: the defaults below, a TOML file, environment variables
(`WETINK_<SECTION>_<KEY>`), the caller's overrides (`{"server.port": 0}`).
"""

from __future__ import annotations

import os
import tomllib
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, cast

import msgspec
from msgspec import Meta

from gateway.errors import ConfigError
from gateway.policies.resolve import KINDS, resolve_policy
from protocol.errors import RequestError
from protocol.requests import Chunk, Hold, PolicySpec, StreamRetract

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ENV_PREFIX = "WETINK_"

_Positive: TypeAlias = Annotated[int, Meta(ge=1)]
_Seconds: TypeAlias = Annotated[float, Meta(gt=0.0)]


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the gateway listens and whom it answers."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8000
    """0: any free port."""
    allowed_origins: list[str] = []
    """Origins of pages that may use the gateway from elsewhere ("*": any). Pages of the gateway's
    own origin, and programs, which send no Origin, always may."""
    allowed_hosts: list[str] | None = None
    """Names the `Host` header may have ("*": any). None: on a loopback address only loopback names,
    which keeps a hostile page from reaching the gateway by rebinding its own name; else any."""
    shutdown_s: _Seconds = 5.0
    """How long connections get to end when the gateway stops."""
    access_log: bool = False


class LimitsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of everything a client could make grow."""

    body_bytes: _Positive = 2 * 1024 * 1024
    """Largest request body, and largest WebSocket message."""
    live_streams: _Positive = 256
    """Streams generating at once; one more is refused with `too_many_streams`."""
    kept_streams: _Positive = 1024
    """Finished streams kept for resumes; the oldest go first."""
    attachments_per_stream: _Positive = 64
    attachments_per_socket: _Positive = 256
    unsent_bytes: _Positive = 256 * 1024
    """Committed text that may wait behind a reader's jammed connection; more ends the attachment
    with `slow_reader`."""


class DeliveryConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Times of delivery, in seconds."""

    heartbeat_s: _Seconds = 15.0
    """Silence after which a heartbeat is sent."""
    retry_s: _Seconds = 1.0
    """What browsers are told to wait before they reconnect."""
    grace_s: _Seconds = 30.0
    """How long a stream generates on with no reader, before it is cancelled."""
    retention_s: _Seconds = 300.0
    """How long a finished stream can still be read."""
    stall_s: _Seconds = 60.0
    """How long one write may wait for its reader before the connection is cut."""


class PoliciesConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Named profiles: words for users instead of knobs."""

    default: str = "chat"
    profiles: dict[str, PolicySpec] = {}
    """Added to the built-in profiles; the same name replaces one."""


class BackendConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which source of tokens, and how the scripted one plays."""

    kind: Literal["local", "scripted"] = "local"
    traces: str | None = None
    """Trace file or folder of traces of the scripted backend; None: the sample that is built in."""
    speed: Annotated[float, Meta(gt=0.0)] = 1.0
    """Factor on the scripted backend's pace."""
    repeat: _Positive = 1
    """How often the scripted backend plays a trace in one stream."""


class EngineConfig(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What the local backend tells its engine at the start; None leaves a setting to the engine,
    which also checks them. Meanings and defaults: engine/config.py.
    """

    model: str | None = None
    draft_model: str | None = None
    draft_head: str | None = None
    drafter: str | None = None
    draft_length: int | None = None
    adaptive_draft: bool | None = None
    verify_delay_ms: float | None = None
    dtype: str | None = None
    mode: str | None = None
    kernels: str | None = None
    threads: int | None = None
    context_length: int | None = None
    max_sequences: int | None = None
    max_waiting: int | None = None
    max_step_tokens: int | None = None
    block_size: int | None = None
    kv_blocks: int | None = None
    kv_memory_mib: int | None = None
    prefix_cache: bool | None = None


class GatewayConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    server: ServerConfig = ServerConfig()
    limits: LimitsConfig = LimitsConfig()
    delivery: DeliveryConfig = DeliveryConfig()
    policies: PoliciesConfig = PoliciesConfig()
    backend: BackendConfig = BackendConfig()
    engine: EngineConfig = EngineConfig()

    @classmethod
    def load(
        cls,
        path: Path | None = None,
        overrides: Mapping[str, object] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> GatewayConfig:
        """Reads everything there is to read. Raises ConfigError naming the key."""
        tree: dict[str, Any] = {} if path is None else _read_toml(path)
        for key, value in _from_env(os.environ if env is None else env).items():
            _put(tree, key, value)
        for key, value in (overrides or {}).items():
            _put(tree, key, value)
        try:
            config = msgspec.convert(tree, cls, strict=False)
        except msgspec.ValidationError as error:
            raise _bad_setting(error) from error
        _check_profiles(config.policies)
        return config


BUILT_IN_PROFILES: dict[str, PolicySpec] = {
    "chat": StreamRetract(budget=0.05),
    "ide": Chunk(unit="line", tail=True),
    "tts": Chunk(unit="sentence"),
    "api": Hold(),
}


def profiles_of(config: PoliciesConfig) -> dict[str, PolicySpec]:
    return {**BUILT_IN_PROFILES, **config.profiles}


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


def _bad_setting(error: msgspec.ValidationError) -> ConfigError:
    problem, _, path = str(error).partition(" - at `$.")
    key = path.rstrip("`") or None
    return ConfigError(f"{key or 'configuration'}: {problem}", key)


def _from_env(env: Mapping[str, str]) -> dict[str, object]:
    """`WETINK_SERVER_PORT=0` → `server.port`; lists are comma-separated. Variables that name no
    section of ours belong to somebody else.
    """
    found: dict[str, object] = {}
    for section in msgspec.structs.fields(GatewayConfig):
        prefix = f"{ENV_PREFIX}{section.name.upper()}_"
        for field in msgspec.structs.fields(cast("type[msgspec.Struct]", type(section.default))):
            text = env.get(prefix + field.name.upper())
            if text is None or field.name == "profiles":
                continue
            is_list = "list" in str(field.type)
            found[f"{section.name}.{field.name}"] = text.split(",") if is_list else text
    return found


def _put(tree: dict[str, Any], key: str, value: object) -> None:
    section, _, name = key.partition(".")
    table = tree.setdefault(section, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{section}: a table is needed ([{section}]), not {table!r}")
    table[name] = value


def _check_profiles(config: PoliciesConfig) -> None:
    profiles = profiles_of(config)
    for name, spec in config.profiles.items():
        if name in KINDS or ":" in name or not name:
            raise ConfigError(
                f"policies.profiles: {name!r} cannot name a profile; "
                f"{', '.join(KINDS)} and names with ':' are policies already"
            )
        try:
            resolve_policy(spec, profiles, config.default)
        except RequestError as error:
            raise ConfigError(f"policies.profiles.{name}: {error.message}") from error
    if config.default not in profiles:
        raise ConfigError(
            f"policies.default: unknown profile {config.default!r}; "
            f"allowed are {', '.join(sorted(profiles))}"
        )
