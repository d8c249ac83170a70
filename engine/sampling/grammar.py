"""Text that must follow a grammar: which tokens may come next, by llguidance.

A grammar's state is a function of the tokens committed so far. A draft's rows are masked each with
the state after that row's own prefix, which is then rolled back, so what is said does not depend on
what was drafted.
"""

from __future__ import annotations

import json
import re
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import llguidance
import llguidance.hf
import numpy as np
from numpy.typing import NDArray

from engine.errors import EngineRequestError
from engine.sampling.spelling import unspellable_in_pattern, unspellable_in_schema
from engine.sampling.tool_calls import calls_of, lark_of, path_of, schema_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from transformers import PreTrainedTokenizerFast

    from engine.sampling.params import Grammar

Masks: TypeAlias = NDArray[np.uint32]  # [rows, words]; bit t of a row: token t may stand there

BITS = 32
JSON_FORM = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""One way to write a value: white space is no choice of the model's, so most of it is forced."""
MOST_CHECKS = 256
"""Subschemas tried in search of the one at fault."""
_PARAMS = {
    "json_schema": "grammar.schema",
    "regex": "grammar.pattern",
    "lark": "grammar.rules",
    "tool_call": "tools",
}


class GrammarState:
    """Where one stream stands in its grammar. Used by one thread at a time."""

    def __init__(self, matcher: llguidance.LLMatcher, vocab: int) -> None:
        self._matcher = matcher
        self._words = -(-vocab // BITS)

    @property
    def error(self) -> str:
        """Why it cannot go on (a limit was reached); empty while it can."""
        return self._matcher.get_error()

    def advance(self, tokens: Sequence[int]) -> bool:
        """Committed tokens; whether the grammar allows them."""
        return self._matcher.consume_tokens(list(tokens))

    def allowed(self, draft: Sequence[int]) -> int:
        """How many of the draft's first tokens may come next."""
        return self._matcher.validate_tokens(list(draft))

    def forced(self, limit: int) -> list[int]:
        """Tokens that have to come next, at most so many."""
        return self._matcher.compute_ff_tokens()[:limit]

    def masks(self, draft: Sequence[int]) -> Masks:
        """One row per draft token and one more. `draft`: only what `allowed` lets through.

        A row without any token: the state is in error.
        """
        rows = np.zeros((len(draft) + 1, self._words), np.uint32)
        for row, token in enumerate((*draft, None)):
            bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint32)[: self._words]
            if self._matcher.is_error():
                return rows
            rows[row] = bits
            if token is not None:
                self._matcher.consume_token(token)
        if draft:
            self._matcher.rollback(len(draft))
        return rows


class GrammarCompiler:
    """Grammars for one model's vocabulary. May be used by any thread."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, vocab: int, ends: Sequence[int]) -> None:
        """`ends`: tokens that end a text."""
        self._tokenizer = tokenizer
        self._vocab = vocab
        self._ends = sorted(ends)
        self._made: llguidance.LLTokenizer | None = None
        self._making = threading.Lock()
        added = tokenizer.backend_tokenizer.get_added_tokens_decoder()
        self._specials = {token.content: id for id, token in added.items() if token.special}

    def compile(self, grammar: Grammar) -> GrammarState:
        """Raises EngineRequestError naming what of the grammar cannot be met, by its path."""
        tokenizer = self._words()
        param = _PARAMS[grammar.kind]
        try:
            source, message = _checked(lambda: self._source(grammar), tokenizer)
            if message:
                path, message = self._fault(grammar, message)
                param = path if grammar.kind == "tool_call" else param + path
            else:
                param, message = _unspellable(grammar, param, tokenizer)
        except RecursionError:
            source, message = "", "nested too deeply"
        if message:
            reason = re.sub(r"\s+", " ", message).strip()
            raise EngineRequestError("invalid_value", f"{param}: {reason[:400]}", param)
        return GrammarState(llguidance.LLMatcher(tokenizer, source, log_level=0), self._vocab)

    def _words(self) -> llguidance.LLTokenizer:
        """The vocabulary as the library wants it; making it takes a second, so not before it is
        needed.
        """
        with self._making:
            if self._made is None:
                self._made = llguidance.hf.from_tokenizer(
                    self._tokenizer, n_vocab=self._vocab, eos_token=self._ends
                )
            return self._made

    def _source(self, grammar: Grammar) -> str:
        """Raises ValueError."""
        match grammar.kind:
            case "json_schema":
                return _from_schema(grammar.text)
            case "tool_call":
                lark = lark_of(calls_of(grammar.text), JSON_FORM, self._specials)
                return llguidance.LLMatcher.grammar_from_lark(lark)
            case "regex":
                return llguidance.LLMatcher.grammar_from_regex(grammar.text)
            case "lark":
                return llguidance.LLMatcher.grammar_from_lark(grammar.text)

    def _fault(self, grammar: Grammar, message: str) -> tuple[str, str]:
        """Where it is, below the grammar's own field, and what: `message` if nothing says more."""
        if grammar.kind == "json_schema":
            return self._at_fault(json.loads(grammar.text), message)
        if grammar.kind == "tool_call":
            calls = calls_of(grammar.text)
            path, fault = self._at_fault(schema_of(calls), "")
            if not path and calls.otherwise is not None:
                path, fault = self._at_fault(calls.otherwise, message)
                return f"grammar.schema{path}", fault
            return f"tools{path_of(path)}", fault or message
        return "", message

    def _at_fault(self, schema: Any, message: str) -> tuple[str, str]:
        """Path (".properties.a") and fault of the innermost subschema that fails by itself."""
        definitions = {
            name: schema[name]
            for name in ("$defs", "definitions")
            if isinstance(schema, dict) and isinstance(schema.get(name), dict)
        }
        path, checks = "", 0
        while True:
            for step, inner in _subschemas(schema):
                checks += 1
                if checks > MOST_CHECKS:
                    return path, message
                alone = json.dumps(_alone(inner, definitions))
                _, fault = _checked(partial(_from_schema, alone))
                if fault:
                    path, message, schema = path + step, fault, inner
                    break
            else:
                return path, message


def _unspellable(
    grammar: Grammar, param: str, tokenizer: llguidance.LLTokenizer
) -> tuple[str, str]:
    """Field and fault of what the vocabulary cannot spell; no fault where there is none."""
    if grammar.kind in ("regex", "lark"):
        found = unspellable_in_pattern(grammar.text, tokenizer)
        return (param, "") if found is None else (param, found.message)
    places: list[tuple[str, Any]]
    if grammar.kind == "tool_call":
        calls = calls_of(grammar.text)
        places = [
            (f"tools[{number}].parameters", each.parameters)
            for number, each in enumerate(calls.tools)
        ]
        places.append(("grammar.schema", calls.otherwise))
    else:
        places = [(param, json.loads(grammar.text))]
    for place, schema in places:
        found = unspellable_in_schema(schema, tokenizer)
        if found is not None:
            return place + found.path, found.message
    return param, ""


def _checked(
    make: Callable[[], str], tokenizer: llguidance.LLTokenizer | None = None
) -> tuple[str, str]:
    """A grammar as the library has it, and what is wrong with it: empty where nothing is."""
    try:
        source = make()
    except ValueError as error:
        return "", str(error)
    failed, messages = llguidance.LLMatcher.validate_grammar_with_warnings(source, tokenizer)
    return source, messages[0] if failed else ""


def _alone(schema: Any, definitions: dict[str, Any]) -> Any:
    """A subschema as a whole one: references are to what the outermost schema defines."""
    if not isinstance(schema, dict):
        return schema
    own = cast("dict[str, Any]", schema)
    shared = {
        name: {**inner, **each} if isinstance(inner := own.get(name), dict) else each
        for name, each in definitions.items()
    }
    return own | shared


def _from_schema(schema: str) -> str:
    """Raises ValueError."""
    return llguidance.LLMatcher.grammar_from_json_schema(schema, overrides=cast("Any", JSON_FORM))


def _subschemas(schema: Any) -> Iterator[tuple[str, Any]]:
    """Those right below `schema`, each with its step: ".items", ".anyOf[1]"."""
    if not isinstance(schema, dict):
        return
    for name in ("properties", "patternProperties", "$defs", "definitions"):
        inner = schema.get(name)
        if isinstance(inner, dict):
            yield from ((f".{name}.{key}", each) for key, each in inner.items())
    for name in ("anyOf", "oneOf", "allOf", "prefixItems"):
        inner = schema.get(name)
        if isinstance(inner, list):
            yield from ((f".{name}[{number}]", each) for number, each in enumerate(inner))
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield f".{name}", schema[name]
