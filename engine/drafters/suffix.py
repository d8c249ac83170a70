"""Suffix drafting (Oliaro et al. 2024): what followed a piece of a recent stream may follow again.

Semantics: of all streams of the same tenant that are remembered (the end of each prompt, and the
answer as far as it has come, this stream's own included), the longest piece that is also the end of
this stream is found, whatever its length, and what followed where it first occurred is proposed. No
text crosses from one tenant (`salt`) to another; the measured chance that a copy holds is shared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.drafters.acceptance import MatchChances
from engine.drafters.base import Proposal
from engine.drafters.suffix_automaton import START, UNMATCHED, Match, SuffixAutomaton

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.drafters.base import SequenceView

MEMORY_BYTES = 32 * 1024 * 1024
SHELVES = 4
"""A tenant alone fills so many automata; the one least recently of use is forgotten whole."""
PROMPT_END = 32
"""Tokens of a prompt that are remembered with its answer: enough to know a question again."""
PRIOR = (
    0.0,
    0.08,
    0.2,
    0.35,
    0.45,
    0.5,
    0.55,
    0.6,
    0.65,
    0.7,
    0.7,
    0.75,
    0.8,
    0.8,
    0.85,
    0.85,
    0.9,
)
"""Assumed chance of acceptance after a match of 0, 1, 2 … tokens, until it is measured."""
MIN_CONFIDENCE = 0.1
"""As in ngram.py."""


class _Shelf:
    """Recent streams of one tenant."""

    def __init__(self, salt: bytes) -> None:
        self.salt = salt
        self.automaton = SuffixAutomaton()
        self.forgotten = False


class Shelves:
    """All that is remembered, at most `most` bytes of it in whole shelves; one more may be filling.

    Full: the shelf that least recently took a token in or gave a match is forgotten.
    """

    def __init__(self, most: int = MEMORY_BYTES) -> None:
        self._most = most
        self._shelves: dict[_Shelf, None] = {}
        """The least recently used one first."""
        self._open: dict[bytes, _Shelf] = {}

    @property
    def bytes(self) -> int:
        return sum(shelf.automaton.bytes for shelf in self._shelves)

    def of(self, salt: bytes) -> list[_Shelf]:
        """The tenant's, newest use last."""
        return [shelf for shelf in self._shelves if shelf.salt == salt]

    def open(self, salt: bytes) -> _Shelf:
        """Where the tenant's next token goes. May forget others."""
        shelf = self._open.get(salt)
        if shelf is None or shelf.automaton.bytes * SHELVES >= self._most:
            shelf = self._open[salt] = _Shelf(salt)
            self._shelves[shelf] = None
            self._make_room(shelf)
        return shelf

    def use(self, shelf: _Shelf) -> None:
        if not shelf.forgotten:
            del self._shelves[shelf]
            self._shelves[shelf] = None

    def clear(self) -> None:
        """Forget everything."""
        for shelf in self._shelves:
            shelf.forgotten = True
        self._shelves.clear()
        self._open.clear()

    def _make_room(self, kept: _Shelf) -> None:
        # Each may still grow to a shelf's whole size: room for the new one is made at once.
        room = self._most - self._most // SHELVES
        held = self.bytes
        for shelf in list(self._shelves):
            if held <= room:
                return
            if shelf is kept:
                continue
            held -= shelf.automaton.bytes
            shelf.forgotten = True
            del self._shelves[shelf]
            if self._open.get(shelf.salt) is shelf:
                del self._open[shelf.salt]


class _Stream:
    def __init__(self, seen: int) -> None:
        self.seen = seen
        """Tokens of the sequence taken in, or left out."""
        self.view: SequenceView | None = None
        self.matches: dict[_Shelf, Match] = {}
        self.shelf: _Shelf | None = None
        self.text = self.state = 0
        """This stream in its shelf."""
        self.last: tuple[MatchChances, int] | None = None
        """Whose chances, and for what match, the last proposal went by."""


class SuffixDrafter:
    """A `Drafter` that copies from recent streams."""

    name = "suffix"

    def __init__(self, shelves: Shelves) -> None:
        self._shelves = shelves
        self._streams: dict[str, _Stream] = {}
        self._chances = MatchChances(PRIOR)

    def begin(self, stream: str, prompt: Sequence[int], prediction: Sequence[int]) -> None:
        self._streams[stream] = _Stream(max(len(prompt) - PROMPT_END, 0))

    def propose(self, items: Sequence[tuple[SequenceView, int]]) -> list[Proposal]:
        return [self._propose(view, limit) for view, limit in items]

    def observe(self, stream: str, drafted: int, accepted: int) -> None:
        state = self._streams[stream]
        if state.last is not None:
            chances, match = state.last
            chances.observe(match, drafted, accepted)
            state.last = None

    def end(self, stream: str) -> None:
        state = self._streams.pop(stream, None)
        if state is not None and state.view is not None:
            self._take_in(state, state.view)

    def _propose(self, view: SequenceView, limit: int) -> Proposal:
        state = self._streams[view.stream]
        state.view = view
        self._take_in(state, view)
        shelf = max(state.matches, key=lambda s: state.matches[s].length)
        match = state.matches[shelf]
        state.last = (self._chances, match.length)
        proposal = Proposal([], [])
        confidence = 1.0
        for place, token in enumerate(shelf.automaton.copy(match, limit)):
            confidence *= self._chances.chance(match.length + place)
            if confidence < MIN_CONFIDENCE and (place or not self._chances.explore(match.length)):
                break
            proposal.tokens.append(token)
            proposal.confidence.append(confidence)
        if proposal.tokens:
            self._shelves.use(shelf)
        return proposal

    def _take_in(self, state: _Stream, view: SequenceView) -> None:
        """What the sequence has grown by: first follow it in what is remembered, then remember it,
        so that no end is found in itself.
        """
        own = self._shelves.open(view.salt)
        if state.shelf is not own:
            state.shelf, state.text, state.state = own, own.automaton.begin(), START
        state.matches = {
            shelf: state.matches.get(shelf, UNMATCHED) for shelf in self._shelves.of(view.salt)
        }
        for token in view.tokens[state.seen :]:
            for shelf, match in state.matches.items():
                state.matches[shelf] = shelf.automaton.follow(match, token)
            state.state = own.automaton.extend(state.text, state.state, token)
        state.seen = len(view.tokens)
