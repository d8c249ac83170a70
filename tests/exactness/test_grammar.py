"""Text under a grammar follows it, and is the same whatever was drafted, in whatever company."""

from __future__ import annotations

import json
import re
from random import Random
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from engine.loading.pull import EMBEDDED_MODEL
from engine.sampling.params import Grammar
from tests.exactness.mixture import assert_same
from tests.exactness.schemas import random_schema
from tests.generation import Generation, engine_on, generate, request

if TYPE_CHECKING:
    from pathlib import Path

    from engine.engine import Engine
    from engine.frames import Start

SHIP: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "kind": {"enum": ["brig", "barque", "schooner"]},
        "masts": {"type": "integer", "minimum": 1, "maximum": 5},
        "ports": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
        "sunk": {"anyOf": [{"type": "null"}, {"const": "long ago"}]},
    },
    "required": ["name", "kind", "masts", "ports", "sunk"],
    "additionalProperties": False,
}
DATE = r"(19|20)\d\d-[01]\d-[0-3]\d, (Monday|Tuesday|Wednesday)"
SUM = 'start: NUMBER ("+" NUMBER)~1..3 "=" NUMBER\nNUMBER: /[0-9]{1,3}/'
GRAMMARS = {
    "schema": Grammar("json_schema", json.dumps(SHIP)),
    "regex": Grammar("regex", DATE),
    "lark": Grammar("lark", SUM),
}


def starts(drafter: str, length: int) -> list[Start]:
    """Each grammar greedily, and with noise and penalties; and a stream without any."""
    settings: list[dict[str, Any]] = [
        {"temperature": 0.0},
        {"temperature": 1.2, "seed": 3},
        {"temperature": 0.8, "seed": 4, "top_k": 40, "top_p": 0.9, "frequency_penalty": 0.3},
    ]
    made = [
        request(
            f"{name}{n}",
            "The ship is described here:",
            grammar=grammar,
            logprobs=True,
            max_tokens=120,
            drafter=drafter,
            draft_length=length,
            **setting,
        )
        for name, grammar in GRAMMARS.items()
        for n, setting in enumerate(settings)
    ]
    free = request("free", "The ship", drafter=drafter, draft_length=length, max_tokens=40, seed=5)
    return [*made, free]


def check_follows(stream: str, text: str) -> None:
    if stream.startswith("schema"):
        jsonschema.validate(json.loads(text), SHIP)
    elif stream.startswith("regex"):
        assert re.fullmatch(DATE, text)
    elif stream.startswith("lark"):
        assert re.fullmatch(r"\d{1,3}(\+\d{1,3}){1,3}=\d{1,3}", text)


def check(engine: Engine, drafters: list[str], lengths: tuple[int, ...] = (1, 8)) -> None:
    alone = {s.stream: generate(engine, s)[s.stream] for s in starts("none", 0)}
    for stream, said in alone.items():
        if stream != "free":
            assert said.reason == "stop", f"{stream}: {said.text}"
            check_follows(stream, said.text)
    drafted = 0
    for drafter in drafters:
        for length in lengths:
            together = Generation(engine)
            together.start(*starts(drafter, length))
            assert_same(together.run(), alone)
            drafted += sum(said.counts.accepted for said in together.streams.values())
    assert drafted > 0
    # Where the grammar leaves no choice nothing is drafted wrongly.
    (forced,) = generate(
        engine,
        request("f", "x", grammar=Grammar("regex", "no choice is left here"), draft_length=8),
    ).values()
    assert forced.counts.accepted == forced.counts.drafted > 0


def test_text_of_a_tiny_model_is_the_same_for_every_draft(tiny: Path, near: Path) -> None:
    engine = engine_on(tiny, dtype="float32", draft_model=str(near))
    check(engine, ["ngram", "model"])


def test_text_in_torch_is_the_same_for_every_draft(tiny: Path, near: Path) -> None:
    engine = engine_on(tiny, kernels="torch", draft_model=str(near))
    check(engine, ["model"])


@pytest.mark.slow
def test_text_of_the_embedded_model_is_the_same_for_every_draft() -> None:
    check(engine_on(EMBEDDED_MODEL, threads=2), ["combined"], (8,))


def test_texts_of_random_schemas_are_valid(tiny: Path, near: Path) -> None:
    check_random_schemas(engine_on(tiny, draft_model=str(near), max_sequences=16), 200)


@pytest.mark.heavy
@pytest.mark.timeout(3600)
def test_texts_of_ten_thousand_random_schemas_are_valid() -> None:
    engine = engine_on(EMBEDDED_MODEL, threads=2, adaptive_draft=True, kv_blocks=None)
    check_random_schemas(engine, 10_000)


def check_random_schemas(engine: Engine, count: int) -> None:
    """Finished texts: those that reach their limit of tokens prove nothing, and are few."""
    random = Random(7)
    schemas = {f"s{n}": random_schema(random) for n in range(count)}
    finished = 0
    for first in range(0, count, 16):
        names = [f"s{n}" for n in range(first, min(first + 16, count))]
        said = generate(
            engine,
            *(
                request(
                    name,
                    "JSON:",
                    grammar=Grammar("json_schema", json.dumps(schemas[name])),
                    temperature=1.0,
                    seed=first,
                    max_tokens=200,
                )
                for name in names
            ),
        )
        for name, transcript in said.items():
            if transcript.reason == "stop":
                finished += 1
                jsonschema.validate(json.loads(transcript.text), schemas[name])
    assert finished >= 0.95 * count


def test_stream_goes_on_under_its_grammar_after_its_engine_is_gone(tiny: Path) -> None:
    engine = engine_on(tiny)
    start = next(s for s in starts("ngram", 4) if s.stream == "schema1")
    whole = generate(engine, start)["schema1"]
    for cut in (1, len(whole.ids) // 2, len(whole.ids)):
        committed = whole.tokens[:cut]
        again = request(
            "again",
            start.prompt or "",
            committed=[token.id for token in committed],
            committed_chars=sum(token.n for token in committed),
            seed=3,
            temperature=1.2,
            max_tokens=120,
            grammar=start.sampling.grammar,
        )
        rest = generate(engine, again)["again"]
        assert [token.id for token in committed] + rest.ids == whole.ids
        assert rest.reason == "stop"
