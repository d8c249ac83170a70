"""docs/openai.md: its tables, from the list that requests are decoded by, and its examples.

`python -m tests.server.openai.page` writes the tables into the page.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from gateway.transports.openai.parameters import (
    CHAT,
    COMPLETIONS,
    MESSAGE,
    RESPONSES,
    STREAM_OPTIONS,
    Fate,
)

if TYPE_CHECKING:
    from gateway.transports.openai.parameters import Parameter, Parameters

PAGE = Path(__file__).parents[3] / "docs" / "openai.md"
TABLES: dict[str, Parameters] = {
    "chat/completions": CHAT,
    "completions": COMPLETIONS,
    "messages[]": MESSAGE,
    "responses": RESPONSES,
    "stream_options": STREAM_OPTIONS,
}

_EXAMPLE = re.compile(r"<!-- example: (\S+) -->\n```\w+\n(.*?)```", re.DOTALL)
_ADDRESS = "http://127.0.0.1:8000"


def examples(address: str) -> dict[str, str]:
    """By name; for a gateway at `address`."""
    page = PAGE.read_text(encoding="utf-8")
    return {name: code.replace(_ADDRESS, address) for name, code in _EXAMPLE.findall(page)}


def with_tables(page: str) -> str:
    """The page, its tables as the list has them now."""
    for name, parameters in TABLES.items():
        begin, end = f"<!-- table: {name} -->\n", "<!-- end -->"
        before, found, rest = page.partition(begin)
        assert found, f"{PAGE.name} has no table {name}"
        page = before + found + _table(parameters) + end + rest.partition(end)[2]
    return page


def _table(parameters: Parameters) -> str:
    lines = ["| field | fate | | example |", "|---|---|---|---|"]
    lines += [
        f"| `{name}` | {each.fate} | {_note(each)} | `{_json(each.example)}` |"
        for fate in Fate
        for name, each in parameters.items()
        if each.fate is fate
    ]
    return "\n".join(lines) + "\n"


def _note(parameter: Parameter) -> str:
    passing = ", ".join(f"`{_json(each)}`" for each in parameter.neutral)
    return parameter.note + (f"; passes: {passing}" if passing else "")


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode().replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
