"""What is wrong with a request, in words a user can act on: the field and what it may be (SPEC
section 9.1).

msgspec says where ("$.policy.unit") and what it did not like; which values would do comes from the
types.
"""

from __future__ import annotations

import json
import re
from typing import Any, TypeAlias, cast

import msgspec
from msgspec import inspect

from protocol.errors import ErrorCode, RequestError

_LOCATION = re.compile(r" - at (?:`key` in )?`\$([^`]*)`$")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]|\[\.\.\.\]")
_MISSING = re.compile(r"Object missing required field `([^`]*)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
# A user's own words are repeated back only so far.
_MAX_QUOTED = 80

Types: TypeAlias = tuple[inspect.Type, ...]


class Unparsed:
    """Stands for a value that could not be looked at."""


def refusal(
    error: msgspec.ValidationError, raw: object, wanted: Any, whole: str = "the body"
) -> RequestError:
    """The RequestError for a value `raw` that msgspec refused as a `wanted`.

    `whole`: what to call the value when no field of it is at fault.
    """
    text = str(error)
    here = _Place(_alternatives(inspect.type_info(wanted)), raw, "")
    location = _LOCATION.search(text)
    if location is not None:
        text = text[: location.start()]
        here = here.follow(location.group(1))
    if missing := _MISSING.match(text):
        field = here.field(missing.group(1))
        return RequestError(
            ErrorCode.MISSING_FIELD,
            f"{field.param} is required: {_described(field.types)}",
            field.param,
        )
    if unknown := _UNKNOWN.match(text):
        param = here.path(cut(unknown.group(1)))
        names = ", ".join(sorted(here.fields()))
        return RequestError(
            ErrorCode.UNKNOWN_FIELD, f"{param} is unknown; allowed here: {names}", param
        )
    subject = here.param or whole
    got = "" if isinstance(here.raw, Unparsed) else f", not {quoted(here.raw)}"
    return RequestError(
        ErrorCode.UNKNOWN_MESSAGE if here.param == "type" else ErrorCode.INVALID_VALUE,
        f"{subject} must be {_described(here.types)}{got}",
        here.param or None,
    )


class _Place:
    """A place in a request: what may stand there and what does."""

    def __init__(self, types: Types, raw: object, param: str) -> None:
        self.types = types
        self.raw = raw
        self.param = param

    def follow(self, location: str) -> _Place:
        """The place at a location as msgspec writes it, ".stop[3]"."""
        here = self
        for step in _STEP.finditer(location):
            name, position = step.groups()
            if name is not None:
                here = here.field(name)
            elif position is not None:
                here = here.item(int(position))
            else:
                here = here.values()
        return here

    def path(self, name: str) -> str:
        return f"{self.param}.{name}" if self.param else name

    def field(self, name: str) -> _Place:
        raw = _mapping(self.raw).get(name, Unparsed())
        return _Place(self.fields().get(name, ()), raw, self.path(name))

    def item(self, position: int) -> _Place:
        types = [
            t.item_type
            for t in self.types
            if isinstance(t, inspect.ListType | inspect.VarTupleType)
        ]
        raw = next(iter(_sequence(self.raw)[position:]), Unparsed())
        return _Place(_alternatives(*types), raw, f"{self.param}[{position}]")

    def values(self) -> _Place:
        """Some value of a mapping; msgspec does not say which."""
        types = [t.value_type for t in self.types if isinstance(t, inspect.DictType)]
        return _Place(_alternatives(*types), Unparsed(), self.param)

    def fields(self) -> dict[str, Types]:
        """Fields of the object that may stand here; of one kind, if the value names its kind."""
        structs = [t for t in self.types if isinstance(t, inspect.StructType)]
        raw = _mapping(self.raw)
        named = [t for t in structs if t.tag_field and raw.get(t.tag_field) == t.tag]
        fields: dict[str, Types] = {}
        for struct in named or structs:
            for field in struct.fields:
                fields[field.encode_name] = _alternatives(field.type)
            if struct.tag_field is not None:
                tags = tuple(str(t.tag) for t in structs)
                fields[struct.tag_field] = (inspect.LiteralType(tags),)
        return fields


def _mapping(raw: object) -> dict[object, object]:
    return cast("dict[object, object]", raw) if isinstance(raw, dict) else {}


def _sequence(raw: object) -> list[object]:
    return cast("list[object]", raw) if isinstance(raw, list) else []


def _alternatives(*types: inspect.Type) -> Types:
    """The types one by one; null is left out, because leaving the field out says the same."""
    flat: list[inspect.Type] = []
    for each in types:
        if isinstance(each, inspect.UnionType):
            flat.extend(_alternatives(*each.types))
        elif not isinstance(each, inspect.NoneType):
            flat.append(each)
    return tuple(flat)


def _described(types: Types) -> str:
    """What may stand at a place: "an integer of at least 1"."""
    words: list[str] = []
    tags: list[str] = []
    for each in types:
        match each:
            case inspect.LiteralType(values=values):
                words.append("one of " + ", ".join(str(value) for value in values))
            case inspect.EnumType(cls=cls):
                words.append("one of " + ", ".join(str(member.value) for member in cls))
            case inspect.IntType():
                words.append("an integer" + _range(each))
            case inspect.FloatType():
                words.append("a number" + _range(each))
            case inspect.StrType():
                words.append("a string" + _size(each, "characters"))
            case inspect.ListType() | inspect.VarTupleType():
                words.append("a list" + _size(each, "items"))
            case inspect.BoolType():
                words.append("true or false")
            case inspect.StructType(tag_field=str(tag_field)):
                tags.append(f"{tag_field} {each.tag}")
            case _:
                words.append("an object")
    if tags:
        words.insert(0, "an object with " + ", ".join(tags))
    return " or ".join(words)


def _range(number: inspect.IntType | inspect.FloatType) -> str:
    words: list[str] = []
    if number.ge is not None:
        words.append(f"at least {number.ge}")
    if number.gt is not None:
        words.append(f"more than {number.gt}")
    if number.le is not None:
        words.append(f"at most {number.le}")
    return " of " + " and ".join(words) if words else ""


def _size(sized: inspect.StrType | inspect.ListType | inspect.VarTupleType, what: str) -> str:
    words: list[str] = []
    if sized.min_length:
        words.append(f"at least {sized.min_length}")
    if sized.max_length is not None:
        words.append(f"at most {sized.max_length}")
    return f" of {' and '.join(words)} {what}" if words else ""


def quoted(value: object) -> str:
    """A user's own value in a message, as it is written in JSON; structures by their kind."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return cut(str(value))
        case str():
            return json.dumps(cut(value), ensure_ascii=False)
        case list():
            return "a list" if value else "an empty list"
        case dict():
            return "an object"
        case _:
            return "binary data"


def cut(text: str) -> str:
    """A user's own words, as far as a message repeats them."""
    return text if len(text) <= _MAX_QUOTED else text[:_MAX_QUOTED] + "…"


# A high surrogate that no low one follows, or a low one that no high one precedes.
_HIGH, _LOW = rb"\\u[dD][89abAB][0-9a-fA-F]{2}", rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_LONE_SURROGATE = re.compile(rb"%b(?!%b)|(?<!%b)%b" % (_HIGH, _LOW, rb"\\u[dD][89abAB]..", _LOW))


def malformed(
    error: Exception, data: bytes | str, *, whole: str = "the body", form: str = "JSON"
) -> RequestError:
    """The RequestError for `data` that is no JSON (or MessagePack, `form`) at all.

    `error`: what msgspec raised; `whole`: what to call the data.
    """
    return RequestError(ErrorCode.MALFORMED_JSON, f"{whole} {_flaw(error, data, form)}")


def _flaw(error: Exception, data: bytes | str, form: str) -> str:
    raw = data.encode("utf-8", "replace") if isinstance(data, str) else data
    if not raw.strip():
        return f"is empty; it must be {form}"
    if isinstance(error, RecursionError):
        return "is nested too deeply; no request needs more than a few levels"
    if isinstance(error, UnicodeError):
        return "is not valid UTF-8; text must be encoded as UTF-8"
    if form == "JSON" and _LONE_SURROGATE.search(raw):
        return (
            "has half of a surrogate pair (\\ud800 to \\udfff); such an escape needs its other half"
        )
    problem = str(error).rpartition("malformed: ")[2]
    if problem == "Input data was truncated":
        return f"is not complete {form}: it ends too early"
    return f"is not {form}: {problem}"
