"""Grammars of calls: `{"name": …, "arguments": …}`, between the marks of a family of models."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, cast

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

_DEFINITION = re.compile(r"^\.\$defs\.(\d+)")


class CalledTool(msgspec.Struct, frozen=True):
    name: str
    parameters: dict[str, Any]
    """JSON Schema, whose references are to itself."""


class Calls(msgspec.Struct, frozen=True):
    """What `Grammar.text` says where its kind is `tool_call`."""

    tools: list[CalledTool]
    begin: str
    """In front of the first call; `end` stands behind the last one."""
    between: str | None
    """Two calls; None: there is one."""
    end: str
    arguments: str
    """What their field is called."""
    otherwise: dict[str, Any] | None
    """Schema of the text that may come instead."""


def calls_of(text: str) -> Calls:
    return msgspec.json.decode(text, type=Calls)


def lark_of(calls: Calls, form: Mapping[str, Any], specials: Mapping[str, int]) -> str:
    """`form`: how JSON is written; `specials`: ids of special tokens, by their text.

    llguidance matches a special token only where it is asked for by its id.
    """

    def json_rule(schema: Any) -> str:
        return f"%json {json.dumps({**schema, 'x-guidance': form})}"

    def marked(text: str) -> str:
        pieces = re.split(f"({'|'.join(map(re.escape, specials))})", text) if specials else [text]
        return " ".join(
            f"<[{specials[piece]}]>" if piece in specials else json.dumps(piece)
            for piece in pieces
            if piece
        )

    more = "" if calls.between is None else f"({marked(calls.between)} call)*"
    start = f"{marked(calls.begin)} call {more} {marked(calls.end)}"
    rules: list[str] = []
    if calls.otherwise is not None:
        start += " | otherwise"
        rules.append(f"otherwise: {json_rule(calls.otherwise)}")
    heads = [
        f'{{"name": {json.dumps(tool.name)}, {json.dumps(calls.arguments)}: '
        for tool in calls.tools
    ]
    either = " | ".join(
        f'{json.dumps(head)} arguments_{number} "}}"' for number, head in enumerate(heads)
    )
    rules.append(f"call: {either}")
    rules += [
        f"arguments_{number}: {json_rule(tool.parameters)}"
        for number, tool in enumerate(calls.tools)
    ]
    return "\n".join([f"start: {start}", *rules])


def schema_of(calls: Calls) -> dict[str, Any]:
    """All parameters in one schema: where a fault is in it, `path_of` says in words of the tools.

    The otherwise is not in it.
    """
    definitions = {
        str(number): _moved(tool.parameters, f"#/$defs/{number}")
        for number, tool in enumerate(calls.tools)
    }
    either = [{"$ref": f"#/$defs/{number}"} for number in definitions]
    return {"anyOf": either, "$defs": definitions}


def path_of(path: str) -> str:
    """A path in that schema as one in the tools: "[0].parameters.properties.a"."""
    found = _DEFINITION.match(path)
    return "" if found is None else f"[{found[1]}].parameters{path[found.end() :]}"


def _moved(schema: Any, root: str) -> Any:
    """With references to where it stands now."""
    if isinstance(schema, list):
        return [_moved(each, root) for each in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    fields = cast("dict[str, Any]", schema)
    moved = {name: _moved(each, root) for name, each in fields.items()}
    reference = fields.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        moved["$ref"] = root + reference[1:]
    return moved
