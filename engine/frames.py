"""What the engine and its gateway say to each other: MessagePack frames over a local socket, each
behind a 4-byte big-endian length.

Engine to gateway: `Loading`*, then `Ready` or `Fatal`, then one `Step` per draft and one per
verification, with `Accepted` / `Rejected` answering each `Start` and `Pong` each `Ping`. Gateway to
engine: `Start`, `Cancel`, `WantDrafts`, `SlowVerification`, `Ping`.

The events of a `Step` are maps whose names and tags are those of gateway/backends/base.py, so that
the gateway decodes them straight into its own types.

Text here is whole code points only. `tail` is always the complete present tail, not a difference:
after an event the committed text has grown by `text` and the tail *is* `tail`.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from engine.sampling.params import Grammar as Grammar
from engine.sampling.params import SamplingParams

MAX_FRAME_BYTES = 16 * 1024 * 1024
LENGTH_PREFIX_BYTES = 4


class _Frame(msgspec.Struct, frozen=True, tag_field="t", array_like=True):
    pass


class _Event(msgspec.Struct, frozen=True, tag_field="event", omit_defaults=True):
    pass


class Alternative(msgspec.Struct, frozen=True, omit_defaults=True):
    """A token that might have stood there, and the text it would have completed."""

    id: int
    text: str
    logprob: float


class Token(msgspec.Struct, frozen=True, omit_defaults=True):
    """One token and how many code points of text it completed (0: its bytes are incomplete).

    `confidence` of a drafted token: the chance that it is accepted if all before it are.
    """

    id: int
    n: int
    logprob: float | None = None
    confidence: float | None = None
    top: list[Alternative] | None = None


class TokenCounts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Running totals of one stream, in tokens; `steps` counts verification steps.

    They go on across engines: `Start` carries those that the last engine reported. Only
    `cached_prompt` is this engine's own; the gateway keeps the first engine's.
    """

    prompt: int = 0
    cached_prompt: int = 0
    completion: int = 0
    drafted: int = 0
    accepted: int = 0
    steps: int = 0


class Drafted(_Event, frozen=True, tag="drafted"):
    """Proposed, not verified. Leaves before its verification starts."""

    tail: str
    tokens: list[Token] = []


class Verified(_Event, frozen=True, tag="verified"):
    """The verdict: `text` is committed; `tail` (text held back for a possible stop sequence) is
    what remains.

    `cause` says why, when the earlier tail is not a prefix of text + tail; otherwise None.
    `tokens` are those `text` is made of, in order: a token is reported once, when all its text is
    committed (engine/text/stream.py). All reported so far are what `Start.committed` needs, and the
    latest `counts` what `Start.counts` needs.
    """

    text: str
    tail: str = ""
    cause: str | None = None
    tokens: list[Token] = []
    counts: TokenCounts = TokenCounts()


class Finished(_Event, frozen=True, tag="finished"):
    """After the stream's last `Verified`; its tail is empty by then."""

    reason: str
    counts: TokenCounts = TokenCounts()


class Failed(_Event, frozen=True, tag="failed"):
    """The engine gave this one stream up; committed text stands."""

    code: str
    message: str
    retryable: bool = False


EngineEvent: TypeAlias = tuple[str, Drafted | Verified | Finished | Failed]
"""A stream's id and what happened to it."""


class Step(_Frame, frozen=True, tag="step"):
    """All events of one draft or one verification, for all streams in the batch."""

    events: list[EngineEvent]


class Accepted(_Frame, frozen=True, tag="accepted"):
    stream: str
    prompt_tokens: int
    seed: int


class Rejected(_Frame, frozen=True, tag="rejected"):
    """The request cannot run: `code`, `message`, `param` as in the public error body."""

    stream: str
    code: str
    message: str
    param: str | None


class Loading(_Frame, frozen=True, tag="loading"):
    """Progress before `Ready`: what is being done, and 0…1 where it can be told."""

    phase: str
    fraction: float | None


class Ready(_Frame, frozen=True, tag="ready"):
    model: str
    context_length: int
    vocab_size: int
    dtype: str
    drafters: list[str]
    kv_blocks: int
    block_size: int
    default_drafter: str = "none"
    """For requests that choose none."""
    kernels: str = "torch"
    """Which compute: "torch", or "native" with the instruction set."""
    max_sequences: int = 1
    """How many run at once; more would wait in the engine."""
    chat_template: str = ""
    """Its source; empty: there is none."""
    answer_opening: str = ""
    """What the template puts in front of an answer, as far as it could be found out."""


class Fatal(_Frame, frozen=True, tag="fatal"):
    """The engine cannot start (or go on); the process ends after this frame."""

    code: str
    message: str


class Load(msgspec.Struct, frozen=True, array_like=True):
    """How much an engine has to do, and what it has counted since it started."""

    running: int = 0
    """Sequences that take part in steps."""
    waiting: int = 0
    """Sequences that wait for a place or for memory; preempted ones among them."""
    kv_blocks_used: int = 0
    """Blocks that sequences hold. A free block may still keep a prefix."""
    steps: int = 0
    preemptions: int = 0
    sentinel_checks: int = 0
    sentinel_mismatches: int = 0


class LogLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the engine's log, as JSON on its standard error: no frame, as it has to arrive
    when frames do not. Whatever else appears there comes from a library.
    """

    level: str
    logger: str
    message: str
    exception: str | None = None
    """A traceback."""
    stream: str | None = None
    """Which one it is about."""


class Pong(_Frame, frozen=True, tag="pong"):
    """Answers a `Ping` at once, whatever the engine is doing: only a process that is stopped, or
    whose threads cannot run, does not.

    `busy_s`: for how long the step, or the encoding of a prompt, that is under way has been; 0
    without one. A long step is busy for its length, an endless loop for ever. `load` is of about
    now: it is read while a step may be changing it.
    """

    busy_s: float
    load: Load = Load()


FromEngine: TypeAlias = Step | Accepted | Rejected | Loading | Ready | Fatal | Pong


class Call(msgspec.Struct, frozen=True, array_like=True):
    name: str
    arguments: str
    """JSON."""
    id: str = ""


class ChatMessage(msgspec.Struct, frozen=True, array_like=True):
    role: str
    content: str
    tool_calls: list[Call] = []
    tool_call_id: str = ""


class Tool(msgspec.Struct, frozen=True, array_like=True):
    name: str
    description: str
    parameters: dict[str, Any]


class Start(_Frame, frozen=True, tag="start"):
    """Begin a stream, or continue one: `committed` are tokens an earlier engine already verified.

    Exactly one of `prompt` and `messages` is set. A continued stream's first `Verified` carries
    only new text.
    """

    stream: str
    prompt: str | None
    messages: list[ChatMessage] | None
    sampling: SamplingParams
    drafter: str | None
    draft_length: int | None
    prediction: str | None
    priority: int
    want_drafts: bool
    committed: list[int]
    committed_chars: int
    """How many code points of text the committed tokens have already put into the ledger."""
    counts: TokenCounts = TokenCounts()
    """Of a continued stream: what earlier engines drafted, accepted and took steps for."""
    salt: bytes = b""
    """The tenant's: what a stream leaves in caches is found by streams of the same salt alone."""
    begun: str = ""
    """What the answer has said already, another model's text perhaps: part of the prompt."""
    tools: list[Tool] = []
    """What the chat template is told that may be called."""


class Cancel(_Frame, frozen=True, tag="cancel"):
    stream: str


class WantDrafts(_Frame, frozen=True, tag="want_drafts"):
    """Whether any attachment shows tentative text; without one, `Drafted` events are not sent."""

    stream: str
    wanted: bool


class SlowVerification(_Frame, frozen=True, tag="slow_verification"):
    """For demonstrations: from the next step on, each pauses so long before it verifies."""

    delay_ms: float


class Ping(_Frame, frozen=True, tag="ping"):
    """Asks for a `Pong`."""


ToEngine: TypeAlias = Start | Cancel | WantDrafts | SlowVerification | Ping
