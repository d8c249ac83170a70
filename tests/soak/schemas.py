"""`python -m tests.soak.schemas`: random schemas, and a text of each by the embedded model.

The schemas come from the generator that schemathesis has, given a schema of schemas. Every text
that is finished must be valid under its schema, as the package jsonschema judges it. A schema that
the grammar library refuses is counted as refused, a stream that ended with an error (the vocabulary
cannot spell what the schema wants) as failed, and a text that met its limit of tokens as
unfinished. A state file remembers what was done, so that a run can be stopped and goes on where it
was. Exit status 0: all are done and valid; 1: one was not; 2: time was up before all were done.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jsonschema
import jsonschema_rs
import msgspec
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.generation.jsonschema.builder import build

# Before torch: threads that spin while they wait starve each other on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from engine.errors import EngineRequestError
from engine.frames import Failed, Finished, Verified
from engine.loading.pull import EMBEDDED_MODEL
from engine.sampling.params import Grammar
from tests.generation import engine_on, request

if TYPE_CHECKING:
    from engine.engine import Engine
    from engine.frames import Step

BATCH = 64
"""Schemas drawn together; those of a batch depend on its number alone."""
MOST_TOKENS = 100
NAMES = ["name", "Größe", "kind of ship", "x", "is_wet", "日本", "a-b", "items", "type", "$ref'd"]
FORMATS = ["date", "date-time", "time", "email", "ipv4", "ipv6", "uuid", "hostname", "uri"]
PATTERNS = ["^[a-f]{2,4}$", r"^\d\d-x?$", "^(a|bc)+d$", "^[^\\s]{1,5}$", "ab", "^Ü?x$"]
_SMALL: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": 3}
_INTEGER: dict[str, Any] = {"type": "integer", "minimum": -1000, "maximum": 1000}
_VALUE: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "maxLength": 6},
        _INTEGER,
        {"type": ["null", "boolean"]},
        {"type": "array", "items": _INTEGER, "maxItems": 2},
    ]
}


class Outcome(msgspec.Struct):
    """One line of the state file."""

    number: int
    verdict: Literal["valid", "invalid", "refused", "failed", "unfinished"]
    schema: Any
    said: str
    """The text, or the refusal."""


def schema_of_schemas(depth: int) -> dict[str, Any]:
    """`depth`: levels below this one, at most."""
    kinds: list[dict[str, Any]] = [
        _kind(
            "string",
            ("maxLength",),
            minLength=_SMALL,
            maxLength={"type": "integer", "minimum": 3, "maximum": 9},
        ),
        _kind("string", ("pattern",), pattern={"enum": PATTERNS}),
        _kind("string", ("format",), format={"enum": FORMATS}),
        _kind(
            "integer",
            ("minimum", "maximum"),
            minimum=_INTEGER,
            maximum={"type": "integer", "minimum": 1000, "maximum": 9999},
        ),
        _kind(
            "integer",
            ("exclusiveMinimum", "exclusiveMaximum"),
            exclusiveMinimum=_INTEGER,
            exclusiveMaximum={"type": "integer", "minimum": 1100, "maximum": 9999},
            multipleOf={"enum": [1, 2, 5, 10]},
        ),
        _kind("number", ("minimum", "maximum"), minimum=_INTEGER, maximum={"const": 1000.5}),
        _kind("boolean"),
        _kind("null"),
        _strict({"enum": {"type": "array", "items": _VALUE, "minItems": 1, "maxItems": 4}}),
        _strict({"const": _VALUE}),
    ]
    if depth:
        inner = schema_of_schemas(depth - 1)
        several = {"type": "array", "items": inner, "minItems": 1, "maxItems": 3}
        of_names = {"type": "array", "items": {"enum": NAMES}, "maxItems": 3, "uniqueItems": True}
        properties = {
            "type": "object",
            "properties": dict.fromkeys(NAMES, inner),
            "maxProperties": 4,
            "additionalProperties": False,
        }
        closed: dict[str, Any] = {"additionalProperties": {"const": False}}
        needed: dict[str, Any] = {"required": of_names}
        branches = [
            _strict({"type": {"const": "object"}, "properties": properties, **closed, **needed}),
            _kind(
                "array",
                ("items", "maxItems"),
                items=inner,
                minItems={"enum": [0, 1]},
                maxItems={"enum": [1, 2, 3]},
            ),
            _kind(
                "array",
                ("prefixItems", "items"),
                prefixItems=several,
                items={"const": False},
                minItems={"enum": [0, 1]},
            ),
            _strict({"anyOf": several}),
        ]
        kinds += branches * 2
    return {"anyOf": kinds}


def _kind(name: str, required: tuple[str, ...] = (), **keywords: Any) -> dict[str, Any]:
    """Of schemas with `type` and some of these keywords, `required` in any case."""
    strict = _strict({"type": {"const": name}, **keywords})
    return {**strict, "required": ["type", *required]}


def _strict(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }


def drawn(batch: int) -> list[dict[str, Any]]:
    """The schemas of one batch."""
    found: list[dict[str, Any]] = []

    @seed(batch)
    @settings(
        max_examples=BATCH,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    @given(build(schema_of_schemas(2), draft=jsonschema_rs.Draft202012, formats={}))
    def take(schema: dict[str, Any]) -> None:
        found.append(schema)

    take()
    return found[:BATCH]


def judged(engine: Engine, batch: int) -> list[Outcome]:
    outcomes: list[Outcome] = []
    asked: dict[str, Outcome] = {}
    for place, schema in enumerate(drawn(batch)):
        number = batch * BATCH + place
        start = request(
            f"s{number}",
            "JSON:",
            grammar=Grammar("json_schema", json.dumps(schema)),
            temperature=1.0,
            seed=number,
            max_tokens=MOST_TOKENS,
            want_drafts=False,
        )
        outcome = Outcome(number, "unfinished", schema, "")
        outcomes.append(outcome)
        try:
            engine.add(start)
            asked[start.stream] = outcome
        except EngineRequestError as error:
            outcome.verdict, outcome.said = "refused", str(error)

    def take(step: Step) -> None:
        for stream, event in step.events:
            outcome = asked[stream]
            match event:
                case Verified(text=text):
                    outcome.said += text
                case Finished(reason="stop"):
                    fits = _fits(outcome.said, outcome.schema)
                    outcome.verdict = "valid" if fits else "invalid"
                case Failed(message=message):
                    outcome.verdict, outcome.said = "failed", message
                case _:
                    pass

    while engine.has_work:
        engine.step(take)
    return outcomes


def _fits(text: str, schema: Any) -> bool:
    try:
        jsonschema.validate(json.loads(text), schema)
    except (json.JSONDecodeError, jsonschema.ValidationError):
        return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.schemas")
    parser.add_argument("--schemas", type=int, default=10_000, help="finished texts to reach")
    parser.add_argument("--minutes", type=float, default=60.0, help="when to stop at the latest")
    parser.add_argument("--state", type=Path, default=Path("schemas.jsonl"))
    options = parser.parse_args()
    begin = time.monotonic()
    done = _read(options.state)
    tally = Counter(outcome.verdict for outcome in done)
    engine = engine_on(EMBEDDED_MODEL, threads=1, kv_blocks=None, max_sequences=16)
    batch = max((outcome.number // BATCH for outcome in done), default=-1) + 1
    while tally["valid"] + tally["invalid"] < options.schemas:
        if time.monotonic() - begin > options.minutes * 60:
            break
        outcomes = judged(engine, batch)
        with options.state.open("ab") as file:
            file.write(b"".join(msgspec.json.encode(each) + b"\n" for each in outcomes))
        tally.update(outcome.verdict for outcome in outcomes)
        for outcome in outcomes:
            if outcome.verdict == "invalid":
                sys.stdout.write(
                    f"number {outcome.number}: {outcome.said!r} {json.dumps(outcome.schema)}\n"
                )
        batch += 1
    sys.stdout.write(f"{dict(tally)}\n")
    if tally["invalid"]:
        return 1
    return 0 if tally["valid"] >= options.schemas else 2


def _read(state: Path) -> list[Outcome]:
    return msgspec.json.Decoder(Outcome).decode_lines(state.read_bytes()) if state.exists() else []


if __name__ == "__main__":
    sys.exit(main())
