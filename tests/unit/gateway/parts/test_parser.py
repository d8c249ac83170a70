from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.parts import Begin, Dialect, Parser
from gateway.parts.dialect import HERMES, LLAMA, MISTRAL

NAMES = frozenset({"tide", "wind"})
HERMES_THINKING = Dialect(calls=HERMES, thinks="marked")
LLAMA_3 = Dialect(calls=LLAMA)
MISTRAL_7 = Dialect(calls=MISTRAL)
TIDE = ("tool_call", "tide", '{"at": "<}\\" noon"}')
CASES: list[tuple[Dialect, str, list[tuple[str, str | None, str]], bool]] = [
    (
        HERMES_THINKING,
        (
            '<think>\nLet </thi me\n</think>\n\nI look < <tool_call>\n{"name": "tide", '
            '"arguments": {"at": "<}\\" noon"}}\n</tool_call>\n<tool_call>{"name": "wind", '
            '"arguments": {}}'
            "</tool_call>\nDone."
        ),
        [
            ("reasoning", None, "Let </thi me\n"),
            ("text", None, "I look < "),
            TIDE,
            ("tool_call", "wind", "{}"),
            ("text", None, "Done."),
        ],
        True,
    ),
    (
        HERMES_THINKING,
        '<tool_call>[{"arguments": {"a": [1]}, "name": "wind"}, {"name": "tide"}]</tool_call>',
        [("tool_call", "wind", '{"a": [1]}'), ("tool_call", "tide", "{}")],
        True,
    ),
    (
        HERMES_THINKING,
        '<tool_call>{"id": "x", "name": "wind", "arguments": {"a": 1}, "type": "}"}',
        [("tool_call", "wind", '{"a": 1}')],
        True,
    ),
    (HERMES_THINKING, "<think>\n\n</think>\n\nYes.", [("text", None, "Yes.")], False),
    (HERMES_THINKING, "<think>On and", [("reasoning", None, "On and")], False),
    (HERMES_THINKING, "Say <think> aloud", [("text", None, "Say <think> aloud")], False),
    (
        Dialect(thinks="at once"),
        "Well</think>\nyes",
        [("reasoning", None, "Well"), ("text", None, "yes")],
        False,
    ),
    (
        LLAMA_3,
        '{"name": "tide", "parameters": {"at": "<}\\" noon"}}; {"name": "wind", "parameters": {}}',
        [TIDE, ("tool_call", "wind", "{}")],
        True,
    ),
    (
        LLAMA_3,
        '<|python_tag|>{"type": "function", "name": "wind", "parameters": {"a": 1}}',
        [("tool_call", "wind", '{"a": 1}')],
        True,
    ),
    (
        MISTRAL_7,
        (
            'Ok[TOOL_CALLS] [{"name": "tide", "arguments": {"at": "<}\\" noon"}}, '
            '{"name": "wind", "arguments": {}, "id": "123456789"}]'
        ),
        [("text", None, "Ok"), TIDE, ("tool_call", "wind", "{}")],
        True,
    ),
    (
        MISTRAL_7,
        '[TOOL_CALLS]tide[ARGS]{"at": "<}\\" noon"}[TOOL_CALLS]wind{}',
        [TIDE, ("tool_call", "wind", "{}")],
        True,
    ),
]
TEXTS = [
    (HERMES_THINKING, '<tool_call>\n{"name": "storm", "arguments": {}}\n</tool_call> so'),
    (HERMES_THINKING, '<tool_call>\n{"name": "tide", "argu'),
    (HERMES_THINKING, "<tool_call>\nno JSON</tool_call>"),
    (HERMES_THINKING, "  a <tool"),
    (LLAMA_3, '{"answer": 42} indeed'),
    (LLAMA_3, 'So: {"name": "tide", "parameters": {}}'),
    (MISTRAL_7, '[TOOL_CALLS]storm[ARGS]{"a": 1}'),
]


class Read(NamedTuple):
    parts: list[tuple[str, str | None, str]]
    called: bool
    is_broken: bool


def read(dialect: Dialect, text: str, cuts: set[int]) -> Read:
    """What `text`, cut there, is made of."""
    parser = Parser(dialect, NAMES)
    places = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    pieces = [
        piece for a, b in zip(places, places[1:], strict=False) for piece in parser.feed(text[a:b])
    ]
    parts: list[tuple[str, str | None, str]] = [("text", None, "")]
    for piece in (*pieces, *parser.finish()):
        if isinstance(piece, Begin):
            parts.append((piece.kind.value, piece.name, ""))
            continue
        kind, name, so_far = parts[-1]
        parts[-1] = (kind, name, so_far + piece.text)
        if piece.at is not None:
            assert text[piece.at : piece.at + len(piece.text)] == piece.text
    first, *others = parts
    return Read([first, *others] if first[2] else others, parser.called, parser.is_broken)


@pytest.mark.parametrize(("dialect", "text", "parts", "called"), CASES)
def test_parser_finds_the_parts_wherever_the_text_is_cut(
    dialect: Dialect, text: str, parts: list[tuple[str, str | None, str]], called: bool
) -> None:
    for cut in range(len(text)):
        assert read(dialect, text, {cut}) == Read(parts, called, False)
    assert read(dialect, text, set(range(len(text)))) == Read(parts, called, False)


@pytest.mark.parametrize(("dialect", "text"), TEXTS)
def test_parser_leaves_what_is_no_call_as_it_is(dialect: Dialect, text: str) -> None:
    for cuts in (set(range(len(text))), *({cut} for cut in range(len(text)))):
        assert read(dialect, text, cuts) == Read([("text", None, text)], False, False)


def test_call_that_was_cut_short_is_broken() -> None:
    text = '<tool_call>{"name": "wind", "arguments": {"a": 1'
    said = read(HERMES_THINKING, text, {20})
    assert said == Read([("tool_call", "wind", '{"a": 1')], True, True)


@given(st.data())
def test_parser_says_the_same_however_any_text_is_cut(data: st.DataObject) -> None:
    """Texts of pieces that look like calls and reasoning, and are not always any."""
    dialect = data.draw(st.sampled_from([HERMES_THINKING, LLAMA_3, MISTRAL_7]))
    shards = [
        *("<think>", "</think>", "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]"),
        *('{"name": "tide", "arguments": ', '{"name": "storm", ', '"parameters": ', "wind", " "),
        *('{"a": "}"}', "{}", "}", "[", "]", ",", ";", '"', "\\", "\n", "<", "x", "1"),
    ]
    text = "".join(data.draw(st.lists(st.sampled_from(shards), max_size=12)))
    cuts = data.draw(st.sets(st.integers(1, max(1, len(text) - 1))))
    whole = read(dialect, text, set())
    assert read(dialect, text, cuts) == whole
    assert all(name in NAMES for kind, name, _ in whole.parts if kind == "tool_call")


def test_tail_shows_only_what_is_certain_to_be_text() -> None:
    parser = Parser(HERMES_THINKING, NAMES)
    assert parser.showable("Hello") == ""
    parser.feed("Hello")
    assert parser.showable(" you < two") == " you "
    parser.feed(" <tool_call>")
    assert parser.showable('{"name": "tide"') == ""
