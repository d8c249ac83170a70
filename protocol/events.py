"""Server events, one struct each (SPEC section 4).

All offsets (`at`, `n`) are in the unit the attachment asked for: code points, UTF-16 units or UTF-8
bytes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, TypeAlias

import msgspec

PROTOCOL_VERSION = 1


class OffsetUnit(StrEnum):
    CODEPOINT = "codepoint"
    UTF16 = "utf-16"
    UTF8 = "utf-8"


class PartKind(StrEnum):
    TEXT = "text"
    REASONING = "reasoning"
    TOOL_CALL = "tool_call"


class Cause(StrEnum):
    """Causes this version sends. On the wire the set is open: readers accept any string."""

    DRAFT_REJECTED = "draft_rejected"
    STOP_SEQUENCE = "stop_sequence"
    ENGINE_RESTART = "engine_restart"
    CANCELLED = "cancelled"


class FinishReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Token counts. Only committed tokens are completion tokens."""

    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    completion_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    rejected_tokens: int = 0
    reasoning_tokens: int = 0
    """Of the completion tokens, those of reasoning parts."""


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """What one attachment saw. Lengths in its unit, times in milliseconds since the request."""

    ttfv_ms: float | None = None
    """Time to first visible: when the first text was sent."""
    ttc_ms: float | None = None
    """Time to committed: when the first committed text was sent."""
    erased_units: int = 0
    normalized_erasure: float = 0.0
    retractions: int = 0
    longest_tail: int = 0
    acceptance_rate: float | None = None
    tokens_per_step: float | None = None


class Alternative(msgspec.Struct, frozen=True):
    """A token that might have stood there, and the text it would have completed."""

    id: int
    text: str
    logprob: float


class Token(msgspec.Struct, frozen=True, omit_defaults=True):
    """One token and the length of the text it completed (0: its bytes are incomplete).

    The one type for tokens from the backend through the ledger to the wire. `n` counts code points
    until the sender puts it in the attachment's unit.
    """

    id: int
    n: int
    logprob: float | None = None
    confidence: float | None = None
    """Of a drafted token: the chance that it is accepted if all before it are."""
    top: list[Alternative] | None = None
    """The most probable tokens there, where the request asked for them."""


class Degradation(StrEnum):
    """What a request was given less of, in an open set."""

    SHORTER_DRAFTS = "shorter_drafts"
    FALLBACK_MODEL = "fallback_model"


class Retraction(msgspec.Struct, frozen=True, kw_only=True):
    """The tail from `at` to its end, `n` units, is gone."""

    at: int
    n: int
    cause: str


class _Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    stream: str | None = None
    """Which stream, where one transport carries many (WebSocket)."""
    t: float | None = None
    """Milliseconds since the request, when `include` has "timing"."""


class Open(_Event, frozen=True, kw_only=True, tag="open"):
    """First event of every attachment. The reader's committed text of `part` is `at` long, its tail
    is empty.
    """

    v: int
    epoch: int
    model: str
    policy: dict[str, object]
    offsets: OffsetUnit
    part: int
    at: int
    kind: str = "text"
    name: str | None = None
    seed: int | None = None
    ref: str | None = None
    degraded: list[str] | None = None
    """What the stream was given less of, because the server was overloaded when it began."""
    draft_model: str | None = None
    """Whose tentative text is shown, if not that of `model`."""


class Tentative(_Event, frozen=True, kw_only=True, tag="tentative"):
    """Append `text` to the tail; `at` = committed + tail length."""

    at: int
    text: str
    verified: int | None = None
    """The tail up to this offset is committed in the stream and will not be taken back."""
    confidence: float | None = None
    tokens: list[Token] | None = None


class Commit(_Event, frozen=True, kw_only=True, tag="commit"):
    """`text` becomes committed at `at`; `retract` removes the rejected end of the tail in the same
    step.
    """

    at: int
    text: str
    retract: Retraction | None = None
    cut_short: bool = False
    """The stream was cut short, and the policy would have withheld the end of `text` for longer."""
    tokens: list[Token] | None = None


class Retract(_Event, frozen=True, kw_only=True, tag="retract"):
    """The tail from `at` on is gone and nothing is committed in its place yet."""

    at: int
    n: int
    cause: str


class Part(_Event, frozen=True, kw_only=True, tag="part"):
    """Part number `part` begins; the previous one is complete."""

    part: int
    kind: str
    name: str | None = None


class Finish(_Event, frozen=True, kw_only=True, tag="finish"):
    """Nothing more will come; the tail is empty and `at` is the last part's final length."""

    at: int
    reason: str
    usage: Usage
    digest: str
    """Lower-case hex SHA-256 over the committed text of all parts, in order, as UTF-8."""
    stats: Stats


class Error(_Event, frozen=True, kw_only=True, tag="error"):
    """This attachment ends here, not complete. Committed text up to `at` stands.

    `ended`: the stream itself has failed. `retryable`: trying again may help: reattaching at the
    last cursor, or, where the stream has ended, repeating its request.
    """

    code: str
    message: str
    retryable: bool
    at: int
    ended: bool = False
    param: str | None = None
    ref: str | None = None
    retry_after_s: float | None = None
    """After how many seconds what was refused may be served."""

    @property
    def resumable(self) -> bool:
        """Whether reattaching at the last cursor may help."""
        return self.retryable and not self.ended


class Heartbeat(_Event, frozen=True, kw_only=True, tag="heartbeat"):
    """Nothing happened; still alive."""


ServerEvent: TypeAlias = Open | Tentative | Commit | Retract | Part | Finish | Error | Heartbeat
IncludeItem: TypeAlias = Literal["tokens", "logprobs", "confidence", "timing"]
