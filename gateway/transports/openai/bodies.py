"""OpenAI's request bodies, as far as they are honoured (see parameters.py)."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from protocol.events import OffsetUnit
from protocol.requests import MAX_TOOLS, Draft, Include, NonNegativeInt, PolicySpec

MOST_CHOICES = 128
"""Of one request, as at OpenAI."""


class TextPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    text: str
    type: Literal["text"] = "text"


Content: TypeAlias = str | list[TextPart]


class CalledFunction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    arguments: str
    """JSON."""


class ToolCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    function: CalledFunction
    id: str = ""
    type: Literal["function"] = "function"
    index: int = 0
    """As deltas have it; some clients send back what they put together from those."""


class Function(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    """A required call follows its parameters in any case; under `auto` none is held to them."""


class FunctionTool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    function: Function
    type: Literal["function"] = "function"


class FunctionName(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str


class NamedChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    function: FunctionName
    type: Literal["function"] = "function"


class ChatMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    role: Literal["system", "user", "assistant", "tool", "developer"]
    content: Content | None = None
    tool_calls: list[ToolCall] = []
    tool_call_id: str | None = None


class Prediction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Text the answer is likely to repeat; the drafter copies from it."""

    content: Content
    type: Literal["content"] = "content"


class NamedSchema(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    schema: dict[str, Any]
    name: str = ""
    description: str | None = None
    strict: bool | None = None
    """A text follows its schema in any case."""


class TextFormat(
    msgspec.Struct, frozen=True, tag_field="type", tag="text", forbid_unknown_fields=True
):
    pass


class JsonFormat(
    msgspec.Struct, frozen=True, tag_field="type", tag="json_object", forbid_unknown_fields=True
):
    pass


class SchemaFormat(
    msgspec.Struct, frozen=True, tag_field="type", tag="json_schema", forbid_unknown_fields=True
):
    json_schema: NamedSchema


ResponseFormat: TypeAlias = TextFormat | JsonFormat | SchemaFormat


class StreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    include_usage: bool = False


class Vendor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`wetink`: what a Wetink request has and OpenAI's has not (SPEC section 8)."""

    policy: PolicySpec | str | None = None
    """None: `hold`, as for everybody else."""
    offsets: OffsetUnit = OffsetUnit.CODEPOINT
    include: Include = []
    draft: Draft = Draft()


class SharedRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What both endpoints honour. Ranges are those of `GenerationRequest`."""

    model: str | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    n: Annotated[int, Meta(ge=1, le=MOST_CHOICES)] = 1
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    ignore_eos: bool | None = None
    stop_token_ids: list[NonNegativeInt] | None = None
    wetink: Vendor | None = None


class ChatCompletionRequest(SharedRequest, frozen=True, kw_only=True):
    """Body of `POST /v1/chat/completions`: what is honoured of it."""

    messages: list[ChatMessage]
    max_completion_tokens: int | None = None
    logprobs: bool = False
    top_logprobs: int = 0
    prediction: Prediction | None = None
    response_format: ResponseFormat = TextFormat()
    tools: Annotated[list[FunctionTool], Meta(max_length=MAX_TOOLS)] = []
    tool_choice: Literal["none", "auto", "required"] | NamedChoice | None = None
    parallel_tool_calls: bool | None = None


class CompletionRequest(SharedRequest, frozen=True, kw_only=True):
    """Body of `POST /v1/completions`: what is honoured of it."""

    prompt: str | Annotated[list[str], Meta(min_length=1, max_length=MOST_CHOICES)]
    logprobs: int | None = None


def plain(content: Content) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)
