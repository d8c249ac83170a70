"""The sections of the configuration, one frozen struct per concern."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from protocol.requests import PolicySpec, Shape

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
