"""Bodies of `POST /v1/responses`, as far as they are honoured (see parameters.py)."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from gateway.transports.openai.bodies import Function
from protocol.requests import MAX_TOOLS, PositiveInt


class InputText(msgspec.Struct, frozen=True):
    """Written by the caller, or by an earlier answer (then with annotations, which say nothing)."""

    text: str
    type: Literal["input_text", "output_text", "text"] = "input_text"


class InputMessage(msgspec.Struct, frozen=True):
    role: Literal["system", "user", "assistant", "developer"]
    content: str | list[InputText]


class InputCall(msgspec.Struct, frozen=True):
    name: str
    arguments: str
    call_id: str


class InputResult(msgspec.Struct, frozen=True):
    call_id: str
    output: str | list[InputText]


class FlatTool(Function, frozen=True, kw_only=True, forbid_unknown_fields=True):
    type: Literal["function"]


class FlatChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    type: Literal["function"]


class PlainFormat(
    msgspec.Struct, frozen=True, tag_field="type", tag="text", forbid_unknown_fields=True
):
    pass


class ObjectFormat(
    msgspec.Struct, frozen=True, tag_field="type", tag="json_object", forbid_unknown_fields=True
):
    pass


class FlatSchema(
    msgspec.Struct, frozen=True, tag_field="type", tag="json_schema", forbid_unknown_fields=True
):
    schema: dict[str, Any]
    name: str = ""
    description: str | None = None
    strict: bool | None = None
    """A text follows its schema in any case."""


class TextOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: PlainFormat | ObjectFormat | FlatSchema = PlainFormat()
    verbosity: Literal["medium"] | None = None


Item: TypeAlias = InputMessage | InputCall | InputResult


class ResponseRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    input: str | Annotated[list[dict[str, Any]], Meta(min_length=1)]
    model: str | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    stream: bool = False
    store: bool = True
    max_output_tokens: PositiveInt | None = None
    temperature: float | None = None
    top_p: float | None = None
    text: TextOptions = TextOptions()
    tools: Annotated[list[FlatTool], Meta(max_length=MAX_TOOLS)] = []
    tool_choice: Literal["none", "auto", "required"] | FlatChoice = "auto"
    parallel_tool_calls: bool = True
