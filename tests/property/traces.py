"""Strategies: texts in many scripts, and what an engine may do on the way to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from protocol.events import IncludeItem, OffsetUnit, Usage
from protocol.requests import Chunk, Hold, PolicySpec, StreamRetract
from tests.conformance.steps import (
    BeginPart,
    Draft,
    Fail,
    Finish,
    Given,
    LedgerStep,
    Verify,
)

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn

# Pieces that are split in nasty places: ZWJ sequences, flags, skin tones, combining marks, letters
# of two, three and four bytes, sentence ends that are none, line breaks of all sorts.
PIECES = (
    "a",
    "the ",
    "Dr. ",
    "3.14",
    "Well. ",
    "So?\n\n",
    "x, y; ",
    "\r\n",
    " ",
    "é",
    "e\u0301",
    "日本。",
    "𠮷",
    "سَلام ",
    "क्ष",
    "👨\u200d👩\u200d👧",
    "👍🏽",
    "🇩🇪",
    "\u200d",
    "\u0301",
    "\u2028",
    "\x00",
)
# A busy machine is no failure.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

CAUSES = ("draft_rejected", "stop_sequence", "engine_restart", "solar_flare")

pieces = st.lists(st.sampled_from(PIECES), max_size=4).map("".join)
texts = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=14).map("".join),
    st.text(max_size=12),
)
offset_units = st.sampled_from(OffsetUnit)
includes = st.lists(
    st.sampled_from(("tokens", "logprobs", "confidence", "timing")), max_size=4, unique=True
).map(lambda items: list[IncludeItem](items))  # pyright: ignore[reportArgumentType]
policies: st.SearchStrategy[PolicySpec] = st.one_of(
    st.builds(Hold, grapheme_safe=st.booleans()),
    st.builds(
        StreamRetract,
        max_tail=st.none() | st.integers(1, 8),
        budget=st.none() | st.floats(0.0, 1.0, exclude_min=True),
        grapheme_safe=st.booleans(),
    ),
    st.builds(
        Chunk,
        unit=st.sampled_from(("token", "word", "clause", "sentence", "line", "paragraph")),
        max_delay_ms=st.none() | st.integers(1, 4000),
        tail=st.booleans(),
        grapheme_safe=st.booleans(),
    ),
)


@st.composite
def tokens_of(draw: DrawFn, text: str) -> list[Given]:
    """Tokens that cover `text`, some of them without text of their own; or none at all."""
    if draw(st.booleans()):
        return []
    tokens: list[Given] = []
    left = len(text)
    while left:
        n = draw(st.integers(0, left)) if len(tokens) < 6 else left
        tokens.append((len(tokens), n, draw(st.sampled_from((None, -0.5))), 0.5))
        left -= n
    return tokens


@st.composite
def part_steps(draw: DrawFn) -> list[LedgerStep]:
    """Drafts and verdicts that end in some text, with an empty tail."""
    truth = draw(texts)
    steps: list[LedgerStep] = []
    at, tail = 0, ""
    for _ in range(draw(st.integers(0, 8))):
        drafting = draw(st.booleans())
        accepted = 0 if drafting else draw(st.integers(0, len(truth) - at))
        kept = draw(st.integers(0, len(truth) - at - accepted))
        text = truth[at : at + accepted]
        following = truth[at + accepted : at + accepted + kept]
        if drafting:
            following += draw(pieces)
        explained = (text + following).startswith(tail)
        cause = None if explained else draw(st.sampled_from(CAUSES))
        at, tail = at + accepted, following
        if drafting:
            steps.append(Draft(tail, draw(tokens_of(tail)), cause))
        else:
            steps.append(Verify(text, tail, draw(tokens_of(text)), cause))
    rest = truth[at:]
    cause = None if rest.startswith(tail) else draw(st.sampled_from(CAUSES))
    steps.append(Verify(rest, "", draw(tokens_of(rest)), cause))
    return steps


@st.composite
def traces(draw: DrawFn) -> list[LedgerStep]:
    """A whole stream: one to three parts, then its end."""
    steps: list[LedgerStep] = []
    for number in range(draw(st.integers(1, 3))):
        if number:
            kind = draw(st.sampled_from(("text", "reasoning", "tool_call", "song")))
            steps.append(BeginPart(kind, draw(st.none() | st.just("f"))))
        steps += draw(part_steps())
    ending = draw(st.sampled_from(("stop", "length", "cancelled", "failed")))
    match ending:
        case "failed":
            if draw(st.booleans()):
                steps.append(Draft(draw(pieces)))
            steps.append(Fail("engine_failed", "gone", draw(st.booleans())))
        case reason:
            steps.append(Finish(reason, Usage(completion_tokens=3, drafted_tokens=4), 2))
    return steps
