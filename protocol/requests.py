"""What a client may ask for, as structs that validate themselves (SPEC section 8).

`forbid_unknown_fields`: a misspelt parameter is an error here, never silently ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias, get_args

import msgspec
from msgspec import Meta

from protocol.events import IncludeItem, OffsetUnit

MAX_STOP_SEQUENCES = 16
MAX_STOP_LENGTH = 512
"""Code points: what could begin a stop sequence is held back from every reader."""
MAX_DRAFT_LENGTH = 16
MAX_TOOLS = 128
MAX_TOP_LOGPROBS = 20

ChunkUnit: TypeAlias = Literal["token", "word", "clause", "sentence", "line", "paragraph"]
MAX_REF_LENGTH = 128
"""Code points; a ref is kept for as long as its attachment is known, and said again in answers."""
PositiveInt: TypeAlias = Annotated[int, Meta(ge=1)]
ExactInt: TypeAlias = Annotated[int, Meta(ge=1, le=2**53 - 1)]
"""Up to what a double holds exactly."""
NonNegativeInt: TypeAlias = Annotated[int, Meta(ge=0)]


Ref: TypeAlias = Annotated[str, Meta(max_length=MAX_REF_LENGTH)]
Include: TypeAlias = Annotated[list[IncludeItem], Meta(max_length=len(get_args(IncludeItem)))]


class Shape(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What leaves at every tick, whatever there is to say (SPEC section 5.6)."""

    pad: Annotated[int, Meta(ge=1024, le=65536)] = 1024
    """Bytes."""
    tick_ms: Annotated[int, Meta(ge=10, le=10_000)] = 100
    """Milliseconds from one to the next."""


class _Policy(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag_field="kind",
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    grapheme_safe: bool = False
    """Hold the last grapheme cluster back until the next one begins."""
    shape: Shape | None = None
    """Sizes and times of delivery that do not depend on the text."""


class Hold(_Policy, frozen=True, kw_only=True, tag="hold"):
    """Commits as they are verified; nothing tentative."""


class StreamRetract(_Policy, frozen=True, kw_only=True, tag="retract"):
    """Tentative text at once, commit or retract on the verdict."""

    max_tail: ExactInt | None = None
    """At most so many units of tail are ever shown, hence ever taken back."""
    budget: Annotated[float, Meta(gt=0.0, le=1.0)] | None = None
    """At most so many units are taken back per committed unit (1 or None: no such bound), by
    showing only what is likely enough to stay.
    """


class Chunk(_Policy, frozen=True, kw_only=True, tag="chunk"):
    """Commits only at boundaries of `unit`, or `max_delay_ms` after the oldest withheld text was
    verified.
    """

    unit: ChunkUnit = "sentence"
    max_delay_ms: ExactInt | None = None
    tail: bool = False
    """Also show tentative (and verified but withheld) text behind the chunk."""
    locale: Annotated[str, Meta(min_length=2, max_length=35)] = "en"


PolicySpec: TypeAlias = Hold | StreamRetract | Chunk


class Call(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A call that an earlier answer has made."""

    name: str
    arguments: str
    """JSON."""
    id: str = ""


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    role: Literal["system", "user", "assistant", "tool", "developer"]
    content: str
    tool_calls: list[Call] = []
    tool_call_id: str = ""
    """Of a tool's message: which call it answers."""


class Draft(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    drafter: Literal["ngram", "suffix", "head", "combined", "model"] | None = None
    """None: the server's default drafter."""
    length: Annotated[int, Meta(ge=0, le=MAX_DRAFT_LENGTH)] | None = None
    """Most tokens drafted per step; 0 switches speculation off; None: the server decides."""


class _Grammar(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", forbid_unknown_fields=True
):
    pass


class JsonSchema(_Grammar, frozen=True, kw_only=True, tag="json_schema"):
    """JSON that is valid under `schema`, written in one way: `{"a": 1, "b": [2, 3]}`."""

    schema: dict[str, Any]


class Regex(_Grammar, frozen=True, kw_only=True, tag="regex"):
    """Text that matches from its beginning to its end."""

    pattern: Annotated[str, Meta(min_length=1)]


class Lark(_Grammar, frozen=True, kw_only=True, tag="lark"):
    """Text that the rule `start` derives."""

    rules: Annotated[str, Meta(min_length=1)]


class Tool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,64}$")]
    description: str = ""
    parameters: dict[str, Any] = msgspec.field(default_factory=lambda: {"type": "object"})
    """JSON Schema of its arguments."""


ToolChoice: TypeAlias = Literal["auto", "required", "none"]
Grammar: TypeAlias = JsonSchema | Regex | Lark


class GenerationRequest(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Body of `POST /v1/streams` and of a WebSocket `start`; either `prompt` or `messages`."""

    prompt: str | None = None
    messages: Annotated[list[Message], Meta(min_length=1)] | None = None
    model: str | None = None
    max_tokens: PositiveInt = 256
    temperature: Annotated[float, Meta(ge=0.0, le=10.0)] | None = None
    top_p: Annotated[float, Meta(gt=0.0, le=1.0)] | None = None
    top_k: NonNegativeInt | None = None
    min_p: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    stop: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=MAX_STOP_LENGTH)]],
        Meta(max_length=MAX_STOP_SEQUENCES),
    ] = []
    stop_token_ids: list[NonNegativeInt] = []
    ignore_eos: bool = False
    frequency_penalty: Annotated[float, Meta(ge=-2.0, le=2.0)] = 0.0
    presence_penalty: Annotated[float, Meta(ge=-2.0, le=2.0)] = 0.0
    repetition_penalty: Annotated[float, Meta(gt=0.0, le=10.0)] = 1.0
    logit_bias: dict[str, Annotated[float, Meta(ge=-100.0, le=100.0)]] = {}
    grammar: Grammar | None = None
    """What the text must follow."""
    tools: Annotated[list[Tool], Meta(max_length=MAX_TOOLS)] = []
    """What the model may call; each call becomes a part of kind `tool_call`."""
    tool_choice: ToolChoice = "auto"
    """"auto": the model decides; "required": it has to call; "none": it is not told of tools."""
    parallel_tool_calls: bool = True
    """Whether an answer that has to call may make several calls."""
    prediction: str | None = None
    priority: Annotated[int, Meta(ge=-100, le=100)] = 0
    draft: Draft = Draft()
    policy: PolicySpec | str | None = None
    """A policy object, a short form ("hold", "retract", "chunk:sentence") or a profile's name."""
    offsets: OffsetUnit = OffsetUnit.CODEPOINT
    include: Include = []
    top_logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] = 0
    """How many of the most probable tokens come with each committed one, where `include` has
    "logprobs".
    """


class Start(msgspec.Struct, frozen=True, tag_field="type", tag="start", forbid_unknown_fields=True):
    ref: Ref
    request: GenerationRequest


class Attach(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag_field="type",
    tag="attach",
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    ref: Ref
    stream: str
    cursor: str | None = None
    policy: PolicySpec | str | None = None
    offsets: OffsetUnit = OffsetUnit.CODEPOINT
    include: Include = []


class Detach(
    msgspec.Struct, frozen=True, tag_field="type", tag="detach", forbid_unknown_fields=True
):
    ref: Ref


class Cancel(
    msgspec.Struct, frozen=True, tag_field="type", tag="cancel", forbid_unknown_fields=True
):
    ref: Ref


class Ack(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag_field="type",
    tag="ack",
    forbid_unknown_fields=True,
):
    """What was shown, spoken or accepted, as an offset into `part`."""

    ref: Ref
    at: NonNegativeInt
    part: NonNegativeInt = 0


ClientMessage: TypeAlias = Start | Attach | Detach | Cancel | Ack
