"""The gateway's configuration: one frozen struct per concern, read once at the edge.

Sources, later ones win: the defaults below, a TOML file, environment variables
(`WETINK_<SECTION>_<KEY>`), the caller's overrides (`{"server.port": 0}`).
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, cast

import msgspec
from msgspec import Meta

from gateway import config_checks as checks
from gateway.config_upstreams import UpstreamConfig, check_upstreams
from gateway.errors import ConfigError
from protocol.refusals import refusal
from protocol.requests import Chunk, Hold, PolicySpec, Shape, StreamRetract

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ENV_PREFIX = "WETINK_"
KEY_VARIABLE = "WETINK_KEY"
"""A client's; it may stand in the environment that a gateway is started from."""

UPSTREAMS = "upstreams"
"""The one section that there may be several of: only files and the command line have it."""
MAX_VERIFY_DELAY_MS = 1000.0
"""As in engine/config.py."""

Positive: TypeAlias = Annotated[int, Meta(ge=1)]
_Seconds: TypeAlias = Annotated[float, Meta(gt=0.0)]


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the gateway listens and whom it answers."""

    host: str = "127.0.0.1"
    """Address or name to listen on. Other than loopback lets other machines in."""
    port: Annotated[int, Meta(ge=0, le=65535)] = 8000
    """0: any free port."""
    allowed_origins: list[str] = []
    """Origins of pages that may use the gateway from elsewhere ("*": any). Pages of the gateway's
    own origin, and programs, which send no Origin, always may."""
    allowed_hosts: list[str] | None = None
    """Names the `Host` header may have ("*": any). None: on a loopback address only loopback names,
    which keeps a hostile page from reaching the gateway by rebinding its own name; else any where
    keys are needed, and where none are, addresses and this machine's own name."""
    tls_certificate: str | None = None
    """File with the certificate and its chain (PEM): HTTPS and WSS instead of HTTP. Goes with
    `tls_key`."""
    tls_key: str | None = None
    """File with the certificate's private key (PEM)."""
    drain_s: Annotated[float, Meta(ge=0.0)] = 20.0
    """How long live streams may go on after a SIGTERM. SIGINT, and a second SIGTERM, end them at
    once."""
    shutdown_s: _Seconds = 5.0
    """How long connections get to end when the gateway stops."""


class AccessConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may use the gateway."""

    keys_file: str | None = None
    """Where `wetink keys` keeps the keys. None: wetink/keys.json in the user's configuration folder
    (XDG_CONFIG_HOME). Where there is such a file keys are needed, on loopback addresses as well."""
    allow_anyone: bool = False
    """Whether requests without a key are served, on whatever address."""
    ticket_secret_file: str | None = None
    """A file with 32 bytes or more that tickets are signed with, for several gateways behind one
    name. None: drawn at the start."""
    ticket_s: _Seconds = 300.0
    """How long a ticket is good that asks for nothing else."""
    longest_ticket_s: _Seconds = 3600.0
    """How long one may be good at most."""


class LimitsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of everything a client could make grow."""

    body_bytes: Positive = 2 * 1024 * 1024
    """Largest request body, and largest WebSocket message."""
    header_bytes: Positive = 32 * 1024
    """Request line and headers together; more is refused with `headers_too_large`."""
    headers: Positive = 100
    """How many a request may have."""
    receive_s: _Seconds = 30.0
    """How long a whole request, headers and body, may take to arrive."""
    idle_s: Annotated[int, Meta(ge=1)] = 5
    """How long a connection may stay open between two requests."""
    socket_idle_s: _Seconds = 600.0
    """How long a WebSocket may stay open that reads no stream, waits for none and sends nothing."""
    connections: Positive = 4096
    """Open at once; one more is refused with `too_many_connections`."""
    connections_per_address: Positive | None = 512
    """Of these, from one client address (IPv6: one /64)."""
    connections_per_key: Positive | None = 1024
    """Requests being answered and WebSockets open with one key."""
    live_streams: Positive = 256
    """Streams generating at once; one more is refused with `too_many_streams`."""
    streams_per_socket: Positive = 64
    """Of these, started over one WebSocket."""
    streams_per_address: Positive = 64
    """Of these, started from one client address (IPv6: one /64)."""
    streams_per_key: Positive | None = 128
    """Of these, started with one key."""
    requests_per_minute_per_address: Positive | None = 1200
    """Requests and starts on a WebSocket; more are refused with `rate_limited`."""
    requests_per_minute_per_key: Positive | None = None
    """The same with one key."""
    tokens_per_minute_per_address: Positive | None = None
    """Of prompts and answers together. `max_tokens` of a stream count until it ends."""
    tokens_per_minute_per_key: Positive | None = None
    """The same with one key."""
    messages_per_second_per_socket: Positive | None = 100
    """Messages that a client may send over one WebSocket; five seconds' worth at once, after as
    many of silence."""
    wrong_keys_per_minute_per_address: Positive | None = 30
    """Guesses at keys; then every key that is not known yet is refused."""
    kept_streams: Positive = 1024
    """Finished streams kept for resumes; the oldest go first."""
    kept_bytes: Positive = 64 * 1024 * 1024
    """Memory that they take together; the oldest go first."""
    attachments_per_stream: Positive = 64
    """Readers of one stream at once."""
    attachments_per_socket: Positive = 256
    """Streams read over one WebSocket at once."""
    attachments_per_address: Positive = 1024
    """Readings of streams by one client address at once (IPv6: one /64)."""
    attachments_per_key: Positive | None = 2048
    """The same with one key."""
    exempt_addresses: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    """Networks the limits per address do not apply to: proxies, as everybody behind one has its
    address."""
    unsent_bytes: Positive = 256 * 1024
    """Committed text that may wait behind a reader's jammed connection; more ends the attachment
    with `slow_reader`."""


class OverloadConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happens when there are more requests than the backend generates at once."""

    places: Positive | None = None
    """Streams handed to the backend at once; the rest wait for their turn. None: as many as it
    generates at once (`engine.max_sequences`)."""
    waiting: Positive = 128
    """Requests that may wait; one more is refused with `overloaded`, or takes the place of one with
    a lower priority, or of a party that has more waiting."""
    longest_wait_s: _Seconds = 60.0
    """Who would have to wait longer is refused at once."""
    shorter_drafts_from_s: _Seconds | None = 2.0
    """Expected wait from which drafts are at most `shorter_draft_length` long; None: never."""
    shorter_draft_length: Annotated[int, Meta(ge=0)] = 2
    """In tokens; 0: no drafts then."""
    fallback_from_s: _Seconds = 10.0
    """Expected wait from which `fallback_model` serves requests that name no model."""
    fallback_model: str | None = None
    """A smaller model that the backend serves too. None: there is none."""


class DeliveryConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When things are delivered; times in seconds where a name does not say otherwise."""

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
    pad: Annotated[int, Meta(ge=1024, le=65536)] | None = None
    """Bytes that leave at every tick, whatever there is to say, so that sizes and times of packets
    do not give away what is generated; for policies and keys that have no `shape`. Goes with
    `tick_ms`. None: events leave as they come."""
    tick_ms: Annotated[int, Meta(ge=10, le=10_000)] | None = None
    """Milliseconds from one of them to the next."""

    @property
    def shape(self) -> Shape | None:
        if self.pad is None or self.tick_ms is None:
            return None
        return Shape(pad=self.pad, tick_ms=self.tick_ms)


class PoliciesConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Named profiles: words for users instead of knobs."""

    default: str = "chat"
    """Profile of requests that name no policy."""
    profiles: dict[str, PolicySpec] = {}
    """Added to the built-in profiles chat, ide, tts and api; the same name replaces one."""


class BackendConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which source of tokens, and how the scripted one plays."""

    kind: Literal["local", "scripted", "none"] | None = None
    """"local": an engine of our own; "scripted": plays trace files, for trying clients out; "none":
    nothing beside `[[upstreams]]`. None: "none" where there are upstreams, else "local"."""
    traces: str | None = None
    """Trace file or folder of traces of the scripted backend; None: the sample that is built in."""
    speed: Annotated[float, Meta(gt=0.0)] = 1.0
    """Factor on the scripted backend's pace."""
    repeat: Positive = 1
    """How often the scripted backend plays a trace in one stream."""


class AheadConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Drafts of a local engine ahead of upstreams, as long as these are slow."""

    enabled: bool | None = None
    """Whether the engine of `[engine]` drafts ahead of them. None: where its packages are
    installed."""


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
    device: str | None = None
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


class DemonstrationConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Lets the page at `/` slow the engine down and kill it; on loopback addresses only."""

    enabled: bool = False
    """Whether the page may do so."""
    verify_delay_ms: Annotated[float, Meta(ge=0.0, le=MAX_VERIFY_DELAY_MS)] = 300.0
    """With which it begins: the engine's, where that is not set."""


class SupervisionConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When the gateway takes its engine for dead or hung, and how often it starts another."""

    start_s: _Seconds = 300.0
    """How long an engine may load without reporting progress."""
    answer_s: _Seconds = 10.0
    """How long a running engine may leave the gateway's pings unanswered. It answers while it
    computes; one that does not is stopped, or out of memory, or stuck in foreign code."""
    step_s: _Seconds = 60.0
    """How long one step, or the encoding of one prompt, may take: longer is an endless loop."""
    cancel_s: _Seconds = 5.0
    """How long a cancelled stream waits for its engine to end it, before the gateway does."""
    max_restarts: Annotated[int, Meta(ge=0)] = 5
    """In `restart_window_s`; with more, what is wrong will not go away by itself: all streams are
    given up."""
    restart_window_s: _Seconds = 60.0
    """What restarts are counted in."""
    restart_delay_s: Annotated[float, Meta(ge=0.0)] = 0.1
    """Before the first restart; doubles with each one in the window."""


class LogConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is written to standard error."""

    format: Literal["human", "json"] = "human"
    """"json": one object per line, for programs."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """Less important lines are left out."""
    access: bool = True
    """One line for each request, when it is over."""
    ids: bool = False
    """Ids of streams and paths of requests in full. Whoever knows a stream's id can read it; so
    usually a fingerprint stands for it."""
    texts: bool = False
    """Prompts, and what was answered."""


class TelemetryConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What other programs are told of the gateway."""

    metrics: bool = True
    """Whether `/metrics` is answered."""
    traces: bool = False
    """Whether every generation is traced with OpenTelemetry (`pip install
    'wetink-gateway[otel]'`). Its own `OTEL_…` variables say where to."""


class GatewayConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    server: ServerConfig = ServerConfig()
    access: AccessConfig = AccessConfig()
    limits: LimitsConfig = LimitsConfig()
    overload: OverloadConfig = OverloadConfig()
    delivery: DeliveryConfig = DeliveryConfig()
    policies: PoliciesConfig = PoliciesConfig()
    backend: BackendConfig = BackendConfig()
    engine: EngineConfig = EngineConfig()
    supervision: SupervisionConfig = SupervisionConfig()
    demonstration: DemonstrationConfig = DemonstrationConfig()
    log: LogConfig = LogConfig()
    telemetry: TelemetryConfig = TelemetryConfig()
    ahead: AheadConfig = AheadConfig()
    upstreams: list[UpstreamConfig] = []

    @property
    def own_backend(self) -> Literal["local", "scripted", "none"]:
        """The source of tokens beside the upstreams."""
        return self.backend.kind or ("none" if self.upstreams else "local")

    @property
    def started_engine(self) -> EngineConfig:
        """What the engine is started with: its settings, and what a demonstration adds."""
        if not self.demonstration.enabled or self.engine.verify_delay_ms is not None:
            return self.engine
        delay = self.demonstration.verify_delay_ms
        return msgspec.structs.replace(self.engine, verify_delay_ms=delay)

    @classmethod
    def load(
        cls,
        path: Path | None = None,
        overrides: Mapping[str, object] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> GatewayConfig:
        """Reads everything there is to read. Raises ConfigError naming the key."""
        tree: dict[str, Any] = {} if path is None else read_toml(path)
        for key, value in _from_env(os.environ if env is None else env).items():
            _put(tree, key, value)
        for key, value in (overrides or {}).items():
            _put(tree, key, value)
        return cls.from_tree(tree)

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> GatewayConfig:
        """A configuration as TOML has it. Raises ConfigError naming the key."""
        _read_profiles(tree)
        try:
            config = msgspec.convert(tree, cls, strict=False)
        except msgspec.ValidationError as error:
            refused = refusal(error, tree, cls, "the configuration")
            raise ConfigError(refused.message, refused.param) from error
        config.check()
        return config

    def check(self) -> None:
        """Raises ConfigError where values do not go together, or could never have an effect."""
        server, policies = self.server, self.policies
        hosts = server.allowed_hosts or []
        checks.check_profiles(policies.profiles, profiles_of(policies), policies.default)
        checks.check_names(server.allowed_origins, hosts, self.limits.exempt_addresses)
        checks.check_tls(server.tls_certificate, server.tls_key)
        checks.check_shape(self.delivery.pad, self.delivery.tick_ms)
        check_upstreams(self.upstreams)
        if self.own_backend == "none" and not self.upstreams:
            raise ConfigError('backend.kind: "none" goes with [[upstreams]], and there is none')
        if self.demonstration.enabled:
            checks.check_demonstration([server.host, *hosts])


BUILT_IN_PROFILES: dict[str, PolicySpec] = {
    "chat": StreamRetract(budget=0.05),
    "ide": Chunk(unit="line", tail=True),
    "tts": Chunk(unit="sentence"),
    "api": Hold(),
}


def profiles_of(config: PoliciesConfig) -> dict[str, PolicySpec]:
    return {**BUILT_IN_PROFILES, **config.profiles}


def read_toml(path: Path) -> dict[str, Any]:
    """Raises ConfigError naming the file."""
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


def _from_env(env: Mapping[str, str]) -> dict[str, object]:
    """`WETINK_SERVER_PORT=0` → `server.port`; lists are comma-separated.

    Raises ConfigError for a variable that looks like ours and is none.
    """
    known: dict[str, tuple[str, bool]] = {}
    for section in msgspec.structs.fields(GatewayConfig):
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


def _put(tree: dict[str, Any], key: str, value: object) -> None:
    if key == UPSTREAMS:
        tree[key] = value
        return
    section, _, name = key.partition(".")
    table = tree.setdefault(section, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{section}: a table is needed ([{section}]), not {table!r}")
    table[name] = value


def _read_profiles(tree: dict[str, Any]) -> None:
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
