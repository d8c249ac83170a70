"""What the gateway needs from a source of tokens, and nothing about where they come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

import msgspec

from gateway.parts import Dialect
from protocol.events import Token

if TYPE_CHECKING:
    from protocol.requests import GenerationRequest


class TokenCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Running totals of one stream, in tokens; `steps` counts verification steps.

    They go on when an engine is restarted. `cached_prompt` stays what the first engine found in its
    cache: what a restart computes again is no work its user asked for.
    """

    prompt: int = 0
    cached_prompt: int = 0
    completion: int = 0
    drafted: int = 0
    accepted: int = 0
    steps: int = 0
    reasoning: int = 0
    """Of `completion`; 0 where parts are only read from its text: their reader counts then."""


class Drafted(msgspec.Struct, frozen=True, tag_field="event", tag="drafted"):
    """The tail is now `tail` (complete, not a difference)."""

    tail: str
    tokens: list[Token] = []
    cause: str | None = None
    """Why, when the earlier tail is not a prefix of the new one (an engine restart)."""


class Verified(msgspec.Struct, frozen=True, tag_field="event", tag="verified"):
    """`text` is committed and the tail is now `tail`; `cause` explains what vanished, if anything
    did.
    """

    text: str
    tail: str = ""
    cause: str | None = None
    tokens: list[Token] = []
    counts: TokenCounts | None = None
    """As of this event, where the backend tells them along."""


class PartBegins(msgspec.Struct, frozen=True, tag_field="event", tag="part"):
    kind: str
    name: str | None = None


class Finished(msgspec.Struct, frozen=True, tag_field="event", tag="finished"):
    reason: str
    counts: TokenCounts = TokenCounts()


class Failed(msgspec.Struct, frozen=True, tag_field="event", tag="failed"):
    code: str
    message: str
    retryable: bool = False


BackendEvent: TypeAlias = Drafted | Verified | PartBegins | Finished | Failed
Sink: TypeAlias = Callable[[BackendEvent], None]
"""Called on the event loop, once per event, in order. Must not block and must not raise."""


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    context_length: int
    drafters: list[str] = []
    default_drafter: str | None = None
    """For requests that choose none; None: the backend leaves no choice."""
    dialect: Dialect | None = None
    """How it writes calls and reasoning. None: the backend tells parts itself."""


class Admission(msgspec.Struct, frozen=True, kw_only=True):
    """A request the backend has taken on."""

    prompt_tokens: int
    """0: not known before its end."""
    seed: int | None
    """None: the backend takes none, so the text cannot be had again."""
    draft_model: str | None = None
    """Another model, whose text is shown ahead of this one's; None: tentative text is its own."""


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """How much a backend has to do, as of some seconds ago, and what it has counted."""

    running: int = 0
    """Streams it works on."""
    waiting: int = 0
    """Streams that wait for their turn."""
    engine: EngineLoad | None = None
    """None: it has no engine, or that is not running."""
    engine_restarts: int = 0
    ahead: AheadLoad | None = None
    """None: nothing is drafted ahead of others' text."""


class AheadLoad(msgspec.Struct, frozen=True, kw_only=True):
    """Of an engine that drafts ahead of upstreams."""

    model: str
    under_way: int
    """Runs that draft now."""
    begun: int
    """Runs so far."""


class EngineLoad(msgspec.Struct, frozen=True, kw_only=True):
    """Counts are those of the present engine: they begin anew with the next one."""

    kv_blocks: int
    kv_blocks_used: int
    steps: int
    preemptions: int
    sentinel_checks: int
    sentinel_mismatches: int


class ServerState(msgspec.Struct, frozen=True, kw_only=True):
    """One server of an upstream, as of now."""

    url: str
    condition: str
    """"up"; "resting" (asked to be left alone); "down"; "probed" (was down, one request tries it).
    """
    outstanding: int
    """Requests under way."""
    requests: int
    failures: dict[str, int]
    """By code, since the start."""
    last_failure: str | None
    tried_in_s: float
    """Seconds until it is asked again."""


class DraftsState(msgspec.Struct, frozen=True, kw_only=True):
    """What is heard of an upstream's own drafts, as of now. Losses cost drafts, never text."""

    engines: int
    """How many publish theirs; 0: none is heard, and readers see committed text only."""
    lost_frames: int
    """That did not arrive, since the start."""
    missed_steps: int
    """That engines had to leave out themselves."""


class UpstreamState(msgspec.Struct, frozen=True, kw_only=True):
    """One upstream, as of now."""

    name: str
    dialect: str
    models: list[str]
    priority: int
    weight: float
    continued: dict[str, int]
    """How streams went on whose server was lost, since the start."""
    servers: list[ServerState]
    drafts: DraftsState | None = None
    """None: its drafts are not asked for."""


class Backend(Protocol):
    """A source of tokens. All methods run on the event loop."""

    async def start(self) -> None:
        """Returns when generations can be admitted. Raises `BackendError` when they never will."""
        ...

    async def stop(self) -> None: ...

    @property
    def ready(self) -> bool: ...

    @property
    def places(self) -> int | None:
        """How many streams it generates at once; None: any number."""
        ...

    def models(self) -> list[ModelInfo]: ...

    def load(self) -> Load: ...

    async def generate(
        self,
        stream: str,
        request: GenerationRequest,
        sink: Sink,
        *,
        want_drafts: bool = False,
        tenant: str = "",
    ) -> Admission:
        """Admit and begin one generation; events go to `sink` until `Finished` or `Failed`.

        `request.model` has been resolved to one of `models()`. `want_drafts`: until
        `Backend.want_drafts` says otherwise. `tenant`: nothing that one's streams leave, in caches
        or drafters, is used for another's. Raises `RequestError` (for the user) when it cannot
        run, in which case `sink` is never called. `sink` may be called before this returns.
        """
        ...

    def cancel(self, stream: str) -> None:
        """Idempotent. The stream still ends with `Finished("cancelled")` through its sink, in
        bounded time.
        """
        ...

    def want_drafts(self, stream: str, wanted: bool) -> None:
        """Whether anyone shows tentative text; a backend may then stop sending `Drafted`."""
        ...


@runtime_checkable
class HasUpstreams(Protocol):
    """What a backend says that passes on other servers' text."""

    def upstreams(self) -> list[UpstreamState]: ...


@runtime_checkable
class Demonstrable(Protocol):
    """What a backend with an engine lets a demonstration do to it."""

    @property
    def verify_delay_ms(self) -> float:
        """How long every step pauses before it verifies its drafts."""
        ...

    def slow_verification(self, delay_ms: float) -> None:
        """From the next step on, and after restarts of the engine too."""
        ...

    def kill_engine(self) -> None:
        """As `kill -9` would. Nothing where none runs."""
        ...
