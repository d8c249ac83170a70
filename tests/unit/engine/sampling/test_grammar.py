# pyright: reportUnknownMemberType=false
# transformers declares some of its types in part only.
"""Grammar states over the tiny tokenizer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from engine.errors import EngineRequestError
from engine.sampling.grammar import GrammarCompiler
from engine.sampling.params import Grammar
from tests import models

if TYPE_CHECKING:
    from engine.sampling.grammar import Masks

EOS = 1
PAIR = {
    "type": "object",
    "properties": {"a": {"enum": ["x", "yy"]}, "b": {"type": "integer"}},
    "required": ["a", "b"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def compiler() -> GrammarCompiler:
    return GrammarCompiler(models.tokenizer(), models.VOCAB, [EOS])


@pytest.fixture(scope="module")
def pair() -> Grammar:
    return Grammar("json_schema", json.dumps(PAIR))


def encoded(text: str) -> list[int]:
    return list(models.tokenizer().encode(text, add_special_tokens=False))


def tokens_in(masks: Masks, row: int) -> set[int]:
    bits = np.unpackbits(masks[row].view(np.uint8), bitorder="little")
    return set(np.flatnonzero(bits).tolist())


def test_each_row_is_masked_with_the_state_after_its_own_prefix(
    compiler: GrammarCompiler, pair: Grammar
) -> None:
    tokens = encoded('{"a": "yy", "b": 12}')
    state = compiler.compile(pair)
    rows = state.masks(tokens)
    assert len(rows) == len(tokens) + 1
    for length in range(len(tokens) + 1):
        alone = compiler.compile(pair)
        assert alone.advance(tokens[:length])
        assert np.array_equal(alone.masks([])[0], rows[length]), f"after {length} tokens"
    assert tokens_in(rows, -1) == {EOS}
    assert np.array_equal(state.masks(tokens), rows), "rolled back"


def test_draft_is_allowed_up_to_its_first_token_outside_the_grammar(
    compiler: GrammarCompiler, pair: Grammar
) -> None:
    state = compiler.compile(pair)
    good, bad = encoded('{"a": "x"'), encoded("banana")
    assert state.allowed(good) == len(good)
    assert state.allowed(good + bad) == len(good)
    assert state.allowed(bad) == 0
    assert state.error == ""


HEIGHT = {
    "type": "object",
    "properties": {"at": {"$ref": "#/$defs/hour"}},
    "required": ["at"],
    "additionalProperties": False,
    "$defs": {"hour": {"type": "integer", "minimum": 0, "maximum": 23}},
}


def calls(tools: list[dict[str, Any]], **changes: Any) -> Grammar:
    form: dict[str, Any] = {
        "tools": tools,
        "begin": "<call>",
        "between": ", ",
        "end": "</call>",
        "arguments": "arguments",
        "otherwise": None,
    }
    return Grammar("tool_call", json.dumps(form | changes))


def test_call_is_of_one_tool_with_arguments_by_its_own_schema(compiler: GrammarCompiler) -> None:
    other: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
    tools = [{"name": "height", "parameters": HEIGHT}, {"name": "stop", "parameters": other}]

    def follows(text: str, **changes: Any) -> bool:
        state, tokens = compiler.compile(calls(tools, **changes)), encoded(text)
        return state.allowed([*tokens, EOS]) == len(tokens) + 1

    height = '{"name": "height", "arguments": {"at": 23}}'
    stop = '{"name": "stop", "arguments": {}}'
    assert follows(f"<call>{height}</call>")
    assert follows(f"<call>{stop}</call>")
    assert follows(f"<call>{height}, {stop}</call>")
    assert not follows(f"<call>{height}, {stop}</call>", between=None)
    assert not follows(height)
    assert not follows('<call>{"name": "height", "arguments": {"at": 24}}</call>')
    assert not follows('<call>{"name": "height", "arguments":{"at": 23}}</call>')
    assert not follows('<call>{"name": "height", "arguments": {}}</call>')
    assert not follows('<call>{"name": "else", "arguments": {}}</call>')
    assert follows('{"name": "stop", "parameters": {}}', begin="", end="", arguments="parameters")
    assert follows("12", otherwise={"type": "integer"})
    assert not follows('"12"', otherwise={"type": "integer"})


def test_mark_that_is_a_special_token_is_asked_for_as_one(compiler: GrammarCompiler) -> None:
    tools: list[dict[str, Any]] = [{"name": "stop", "parameters": {"enum": [{}]}}]
    state = compiler.compile(calls(tools, begin="<s> [", end="]"))
    tokens = encoded(' [{"name": "stop", "arguments": {}}]')
    assert state.allowed([0, *tokens, EOS]) == len(tokens) + 2


def test_tool_that_cannot_be_called_is_refused_with_the_path_of_its_fault(
    compiler: GrammarCompiler,
) -> None:
    broken = {"type": "object", "properties": {"at": {"type": "banana"}}}
    tools = [{"name": "a", "parameters": HEIGHT}, {"name": "b", "parameters": broken}]
    with pytest.raises(EngineRequestError) as caught:
        compiler.compile(calls(tools))
    assert caught.value.param == "tools[1].parameters.properties.at"
    with pytest.raises(EngineRequestError) as caught:
        compiler.compile(calls(tools[:1], otherwise=broken))
    assert caught.value.param == "grammar.schema.properties.at"


def test_schema_that_is_nested_too_deeply_is_refused(compiler: GrammarCompiler) -> None:
    nested = '{"type": "integer"}'
    for _ in range(1000):
        nested = f'{{"type": "array", "items": {nested}}}'
    deep_tools = f'[{{"name": "a", "parameters": {nested}}}]'
    for grammar in (
        Grammar("json_schema", nested),
        Grammar("tool_call", calls([]).text.replace("[]", deep_tools)),
    ):
        with pytest.raises(EngineRequestError) as caught:
            compiler.compile(grammar)
        assert "deep" in caught.value.message or "recursion" in caught.value.message


RARE = "\U000432ed"
"""Begins with the byte F1."""


@pytest.fixture(scope="module")
def poor_compiler() -> GrammarCompiler:
    """Of a vocabulary without a token for the byte F1, as that of the embedded model is."""
    whole = models.tokenizer().backend_tokenizer
    described = json.loads(whole.to_str())
    del described["model"]["vocab"]["ñ"]  # how byte-level vocabularies write F1
    backend = Tokenizer.from_str(json.dumps(described))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    return GrammarCompiler(tokenizer, models.VOCAB, [EOS])


@pytest.mark.parametrize(
    ("grammar", "param"),
    [
        ({"enum": [None, ["x", {"a": RARE}]]}, "grammar.schema.enum[1][1].a"),
        ({"const": RARE}, "grammar.schema.const"),
        (
            {"properties": {"a": {"items": {"const": RARE}}}},
            "grammar.schema.properties.a.items.const",
        ),
        ({"properties": {RARE: {}}}, f"grammar.schema.properties.{RARE}"),
        ({"anyOf": [{}, {"pattern": f"^x{RARE}$"}]}, "grammar.schema.anyOf[1].pattern"),
        (Grammar("regex", f"x|{RARE}"), "grammar.pattern"),
        (Grammar("lark", f'start: "{RARE}"'), "grammar.rules"),
        (
            calls([{"name": "a", "parameters": {"type": "object", "required": [RARE]}}]),
            "tools[0].parameters.required[0]",
        ),
        (calls([], otherwise={"const": RARE}), "grammar.schema.const"),
    ],
)
def test_literal_that_the_vocabulary_cannot_spell_is_refused_with_its_path(
    compiler: GrammarCompiler,
    poor_compiler: GrammarCompiler,
    grammar: Grammar | dict[str, Any],
    param: str,
) -> None:
    if isinstance(grammar, dict):
        grammar = Grammar("json_schema", json.dumps(grammar))
    compiler.compile(grammar)
    with pytest.raises(EngineRequestError) as caught:
        poor_compiler.compile(grammar)
    assert (caught.value.code, caught.value.param) == ("invalid_value", param)
    assert repr(RARE) in caught.value.message


@pytest.mark.parametrize(
    "grammar",
    [
        Grammar("regex", f"[a{RARE}]"),
        Grammar("json_schema", json.dumps({"enum": ["灯台", "\x04", "é"]})),
        Grammar("json_schema", json.dumps({"type": "string", "description": RARE})),
    ],
)
def test_grammar_is_taken_where_nothing_has_to_be_said_that_cannot_be(
    poor_compiler: GrammarCompiler, grammar: Grammar
) -> None:
    assert poor_compiler.compile(grammar).masks([]).any()


def test_tokens_without_a_choice_are_forced(compiler: GrammarCompiler, pair: Grammar) -> None:
    state = compiler.compile(pair)
    forced = state.forced(100)
    text = str(models.tokenizer().decode(forced))
    assert len(text) > 1
    assert '{"a": "'.startswith(text)
    assert state.forced(2) == forced[:2]
    for row, token in enumerate(forced):
        assert tokens_in(state.masks(forced), row) == {token}


@pytest.mark.parametrize(
    ("grammar", "param", "words"),
    [
        (Grammar("regex", "(a"), "grammar.pattern", "unclosed group"),
        (Grammar("lark", 'start: "a" c'), "grammar.rules", "unknown name"),
        ({"type": "banana"}, "grammar.schema", "banana"),
        ({"type": "object", "properties": {"a": 3}}, "grammar.schema.properties.a", ""),
        ({"$ref": "#/$defs/a", "$defs": []}, "grammar.schema", ""),
        ({"items": {"$ref": "#/$defs/no"}, "$defs": {"a": {}}}, "grammar.schema.items", "no"),
        (
            {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}},
            "grammar.schema.properties.a",
            "uniqueItems",
        ),
        (
            {"type": "array", "items": {"anyOf": [{"type": "string"}, {"format": "banana"}]}},
            "grammar.schema.items.anyOf[1]",
            "banana",
        ),
        (
            {
                "type": "object",
                "properties": {
                    "b": {"$ref": "#/$defs/b"},
                },
                "required": ["b"],
                "$defs": {"b": {"type": "integer", "minimum": 5, "maximum": 2}},
            },
            "grammar.schema.properties.b",
            "minimum",
        ),
    ],
)
def test_grammar_that_cannot_be_followed_is_refused_with_its_path(
    compiler: GrammarCompiler, grammar: Grammar | dict[str, Any], param: str, words: str
) -> None:
    if isinstance(grammar, dict):
        grammar = Grammar("json_schema", json.dumps(grammar))
    with pytest.raises(EngineRequestError) as caught:
        compiler.compile(grammar)
    assert (caught.value.code, caught.value.param) == ("invalid_value", param)
    assert words in caught.value.message
