"""How a family of models writes calls and reasoning, and how to tell it by its chat template."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

THINK, THOUGHT = "<think>", "</think>"


class Calls(msgspec.Struct, frozen=True, kw_only=True):
    """How calls are written. Each is an object with `name` and the arguments under `arguments`."""

    opener: str
    """What stands in front of calls; empty: they begin the answer, with their brace."""
    closer: str
    """What ends them; empty: nothing does."""
    begin: str
    """In front of the first call that is forced; then `between` two and `end` behind the last."""
    between: str
    end: str
    arguments: Literal["arguments", "parameters"] = "arguments"
    is_named_outside: bool = False
    """Whether a call may also be written `name[ARGS]{…}`."""


HERMES = Calls(
    opener="<tool_call>",
    closer="</tool_call>",
    begin="<tool_call>\n",
    between="\n</tool_call>\n<tool_call>\n",
    end="\n</tool_call>",
)
"""Hermes, Qwen, SmolLM2 (which may write a list of calls between the marks)."""
LLAMA = Calls(opener="", closer="", begin="", between="; ", end="", arguments="parameters")
"""Llama 3: the whole answer is a call."""
MISTRAL = Calls(
    opener="[TOOL_CALLS]",
    closer="]",
    begin="[TOOL_CALLS] [",
    between=", ",
    end="]",
    is_named_outside=True,
)


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    calls: Calls = HERMES
    knows_tools: bool = False
    """Whether the chat template has a place for tools; else they are told as text."""
    thinks: Literal["never", "marked", "at once"] = "never"
    """"at once": the template has begun the reasoning already."""


def dialect_of(template: str | None, opening: str = "") -> Dialect:
    """`template`: a model's chat template. `opening`: what that puts in front of an answer."""
    source = template or ""
    knows_tools = re.search(r"\btools\b", source) is not None
    if not knows_tools:
        calls = HERMES
    elif "[TOOL_CALLS]" in source:
        calls = MISTRAL
    elif '"parameters":' in source and "<tool_call>" not in source:
        calls = LLAMA
    else:
        calls = HERMES
    if opening.rstrip().endswith(THINK):
        return Dialect(calls=calls, knows_tools=knows_tools, thinks="at once")
    thinks = "marked" if THOUGHT in source else "never"
    return Dialect(calls=calls, knows_tools=knows_tools, thinks=thinks)
