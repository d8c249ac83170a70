"""Literals of grammars that a vocabulary cannot spell: it has no token for one of their bytes.

llguidance finds that out only where such a literal is the only way on, in the middle of a text.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

    import llguidance

_CLASS = re.compile(r"\[(?:\\.|[^\]\\])*\]")
"""Of a pattern: one of several characters, so none of them has to be spelt."""


class Unspellable(NamedTuple):
    path: str
    """Below the schema: ".properties.a.enum[1]"."""
    character: str

    @property
    def message(self) -> str:
        return f"{self.character!r} cannot be said: no token of the model has its bytes"


def unspellable_in_pattern(pattern: str, tokenizer: llguidance.LLTokenizer) -> Unspellable | None:
    """A pattern, or rules: what stands in them outside classes of characters."""
    return _fault("", _CLASS.sub("", pattern), tokenizer)


def unspellable_in_schema(schema: Any, tokenizer: llguidance.LLTokenizer) -> Unspellable | None:
    """The first one, in no order that matters. Raises RecursionError."""
    for path, literal, is_pattern in _literals(schema, ""):
        text = _CLASS.sub("", literal) if is_pattern else json.dumps(literal, ensure_ascii=False)
        if (fault := _fault(path, text, tokenizer)) is not None:
            return fault
    return None


def _fault(path: str, text: str, tokenizer: llguidance.LLTokenizer) -> Unspellable | None:
    if text.isascii() and text.isprintable():  # which every byte-level vocabulary can spell
        return None
    if _survives(text, tokenizer):
        return None
    lost = (each for each in dict.fromkeys(text) if not _survives(each, tokenizer))
    character = next(lost, None)
    return None if character is None else Unspellable(path, character)


def _survives(text: str, tokenizer: llguidance.LLTokenizer) -> bool:
    """Whether its tokens are all of it. Lone surrogates are for others to refuse."""
    data = text.encode("utf-8", "ignore")
    return tokenizer.decode_bytes(tokenizer.tokenize_bytes(data)) == data


def _literals(schema: Any, path: str) -> Iterator[tuple[str, str, bool]]:
    """Path, literal, and whether that is a pattern: of all that a text of the schema may have to
    say.
    """
    if not isinstance(schema, dict):
        return
    fields = cast("dict[str, Any]", schema)
    for name, value in fields.items():
        below = f"{path}.{name}"
        if name == "pattern" and isinstance(value, str):
            yield below, value, True
        elif name in ("const", "enum", "required"):
            yield from ((place, text, False) for place, text in _texts(value, below))
        elif name in ("properties", "patternProperties", "$defs", "definitions"):
            inner = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
            for key, each in inner.items():
                if name == "properties" or name == "patternProperties":
                    yield f"{below}.{key}", key, name == "patternProperties"
                yield from _literals(each, f"{below}.{key}")
        elif name in ("anyOf", "oneOf", "allOf", "prefixItems") and isinstance(value, list):
            for number, each in enumerate(cast("list[Any]", value)):
                yield from _literals(each, f"{below}[{number}]")
        elif name in ("items", "additionalProperties"):
            yield from _literals(value, below)


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    match value:
        case str():
            yield path, value
        case list():
            for number, each in enumerate(cast("list[Any]", value)):
                yield from _texts(each, f"{path}[{number}]")
        case dict():
            for key, each in cast("dict[str, Any]", value).items():
                yield f"{path}.{key}", key
                yield from _texts(each, f"{path}.{key}")
        case _:
            pass
