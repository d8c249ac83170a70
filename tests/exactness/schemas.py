"""Random JSON schemas that a text can be written for, each small enough to be finished."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from random import Random

WORDS = ("name", "Größe", "kind of ship", "x", "is_wet", "日", "a-b", "items", "type", "n1")


def random_schema(random: Random, depth: int = 3) -> dict[str, Any]:
    """`depth`: levels below this one, at most."""
    leaves = [_string, _number, _choice, _constant, _pattern, _boolean, _nothing]
    branches = [_object, _array, _either, _referring]
    make = random.choice(leaves if depth == 0 else leaves + 2 * branches)
    return make(random, depth)


def _string(random: Random, _depth: int) -> dict[str, Any]:
    least = random.randint(0, 3)
    return {"type": "string", "minLength": least, "maxLength": least + random.randint(0, 6)}


def _number(random: Random, _depth: int) -> dict[str, Any]:
    least = random.randint(-200, 200)
    if random.random() < 0.3:
        return {"type": "number", "minimum": least, "maximum": least + 1}
    most = least + random.randint(0, 500)
    if random.random() < 0.3:
        return {"type": "integer", "exclusiveMinimum": least, "exclusiveMaximum": most + 2}
    return {"type": "integer", "minimum": least, "maximum": most}


def _choice(random: Random, _depth: int) -> dict[str, Any]:
    return {"enum": random.sample([*WORDS, 1, 2.5, None, True, [1], {"k": "v"}], 3)}


def _constant(random: Random, _depth: int) -> dict[str, Any]:
    return {"const": random.choice(WORDS)}


def _pattern(random: Random, _depth: int) -> dict[str, Any]:
    return {
        "type": "string",
        "pattern": random.choice(("^[a-f]{2,4}$", r"^\d\d-x?$", "^(a|bc)+d$")),
    }


def _boolean(_random: Random, _depth: int) -> dict[str, Any]:
    return {"type": "boolean"}


def _nothing(_random: Random, _depth: int) -> dict[str, Any]:
    return {"type": "null"}


def _object(random: Random, depth: int) -> dict[str, Any]:
    names = random.sample(WORDS, random.randint(0, 4))
    required = [name for name in names if random.random() < 0.7]
    return {
        "type": "object",
        "properties": {name: random_schema(random, depth - 1) for name in names},
        "required": required,
        "additionalProperties": False,
    }


def _array(random: Random, depth: int) -> dict[str, Any]:
    least = random.randint(0, 2)
    items = random_schema(random, depth - 1)
    most = least + random.randint(0, 2)
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


def _either(random: Random, depth: int) -> dict[str, Any]:
    return {"anyOf": [random_schema(random, depth - 1) for _ in range(random.randint(1, 3))]}


def _referring(random: Random, depth: int) -> dict[str, Any]:
    """Only at the top do references find their definitions."""
    if depth < 3:
        return _object(random, depth)
    shared = random_schema(random, 1)
    wanted = {"type": "array", "items": {"$ref": "#/$defs/shared"}, "maxItems": 2}
    return {
        "type": "object",
        "properties": {"one": {"$ref": "#/$defs/shared"}, "more": wanted},
        "required": ["one"],
        "additionalProperties": False,
        "$defs": {"shared": shared},
    }
