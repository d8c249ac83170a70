"""A suffix automaton over several growing texts (Blumer et al. 1985), in little memory.

Every distinct piece of every text leads from the start to exactly one state; pieces that end at the
same places share one. So the longest end of a text that occurs anywhere is followed token by token,
without ever going back over it: constant time per token, amortised, for reading and for growing.
"""

from __future__ import annotations

from array import array
from typing import NamedTuple

START = 0
NONE = -1
STATE_BYTES = 30
"""Six numbers of 4 bytes, and the room that arrays keep for growth."""
TOKEN_BYTES = 5
FIRST_BRANCH_BYTES = 420
BRANCH_BYTES = 180
"""Of a state with more than one way on: its dictionary, and each further entry (measured)."""


class Match(NamedTuple):
    """An end of some text, `length` tokens long, that occurs here."""

    state: int
    length: int


UNMATCHED = Match(START, 0)


class SuffixAutomaton:
    def __init__(self) -> None:
        self._length = array("i", [0])
        self._link = array("i", [NONE])
        """To the state of the longest end that also occurs elsewhere."""
        self._text = array("i", [NONE])
        self._end = array("i", [0])
        """Where a state's pieces first end: after this many tokens of that text."""
        self._token = array("i", [NONE])
        self._next = array("i", [NONE])
        """The only way on, of most states."""
        self._ways: dict[int, dict[int, int]] = {}
        """All ways on, of the others."""
        self._texts: list[array[int]] = []
        self.bytes = STATE_BYTES
        """About what it holds of memory; never less than it really does by much."""

    def begin(self) -> int:
        """The number of a new, empty text."""
        self._texts.append(array("i"))
        self.bytes += 100
        return len(self._texts) - 1

    def extend(self, text: int, state: int, token: int) -> int:
        """Text number `text`, which ended in `state` (START: it was empty), goes on with `token`.
        Returns the state it ends in now.
        """
        self._texts[text].append(token)
        self.bytes += TOKEN_BYTES
        there = self._way(state, token)
        if there != NONE:
            return self._split(state, token, there)
        new = self._add(self._length[state] + 1, text, len(self._texts[text]))
        link = START
        while state != NONE:
            there = self._way(state, token)
            if there != NONE:
                link = self._split(state, token, there)
                break
            self._lead(state, token, new)
            state = self._link[state]
        self._link[new] = link
        return new

    def follow(self, match: Match, token: int) -> Match:
        """The longest end of the text, gone on with `token`, that occurs here by now."""
        state, length = self._settled(match)
        there = self._way(state, token)
        while there == NONE and state != START:
            state = self._link[state]
            length = self._length[state]
            there = self._way(state, token)
        return UNMATCHED if there == NONE else Match(there, length + 1)

    def copy(self, match: Match, count: int) -> list[int]:
        """At most `count` tokens of what followed where the match first occurred."""
        state, _ = self._settled(match)
        if state == START:
            return []
        end = self._end[state]
        return self._texts[self._text[state]][end : end + count].tolist()

    def _settled(self, match: Match) -> Match:
        """Its state by now: texts that grew may have split it."""
        state, length = match
        while state != START and self._length[self._link[state]] >= length:
            state = self._link[state]
        return Match(state, length)

    def _way(self, state: int, token: int) -> int:
        if self._token[state] == token:
            return self._next[state]
        ways = self._ways.get(state)
        return NONE if ways is None else ways.get(token, NONE)

    def _lead(self, state: int, token: int, there: int) -> None:
        """From `state`, `token` leads `there` from now on."""
        if self._token[state] in (NONE, token):
            self._token[state], self._next[state] = token, there
            return
        ways = self._ways.get(state)
        if ways is None:
            self._ways[state] = {token: there}
            self.bytes += FIRST_BRANCH_BYTES
            return
        self.bytes += BRANCH_BYTES * (token not in ways)
        ways[token] = there

    def _add(self, length: int, text: int, end: int) -> int:
        self._length.append(length)
        self._link.append(START)
        self._text.append(text)
        self._end.append(end)
        self._token.append(NONE)
        self._next.append(NONE)
        self.bytes += STATE_BYTES
        return len(self._length) - 1

    def _split(self, state: int, token: int, there: int) -> int:
        """The state of `state`'s longest piece and `token`: `there`, or, where that has longer
        pieces too, a new one taken out of it.
        """
        length = self._length[state] + 1
        if self._length[there] == length:
            return there
        new = self._add(length, self._text[there], self._end[there])
        self._token[new], self._next[new] = self._token[there], self._next[there]
        ways = self._ways.get(there)
        if ways is not None:
            self._ways[new] = dict(ways)
            self.bytes += FIRST_BRANCH_BYTES + BRANCH_BYTES * (len(ways) - 1)
        self._link[new] = self._link[there]
        self._link[there] = new
        while state != NONE and self._way(state, token) == there:
            self._lead(state, token, new)
            state = self._link[state]
        return new
