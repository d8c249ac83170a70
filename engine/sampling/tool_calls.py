"""The JSON schema of a call of one of several tools: `{"name": …, "arguments": …}`."""

from __future__ import annotations

import re
from typing import Any, cast

_DEFINITION = re.compile(r"^\.\$defs\.(\d+)")


def schema_of(tools: list[dict[str, Any]]) -> dict[str, Any]:
    """`tools`: each a `name` and the schema of its `parameters`, whose references are to itself."""
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool["name"]},
                "arguments": {"$ref": f"#/$defs/{number}"},
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for number, tool in enumerate(tools)
    ]
    definitions = {
        str(number): _moved(tool["parameters"], f"#/$defs/{number}")
        for number, tool in enumerate(tools)
    }
    return {"anyOf": calls, "$defs": definitions}


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
