"""Prompt lookup (Saxena, 2023): what followed the last few tokens before may follow them again.

Two sources per stream: its own context, and the caller's prediction of the output. Both are read
through an index that grows with the context and is never rebuilt, so a step costs microseconds
however long the context is.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from engine.drafters.acceptance import MatchChances
from engine.drafters.base import Proposal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.drafters.base import SequenceView

MAX_MATCH = 8
"""Match lengths beyond this say nothing more about the chance of acceptance."""
MAX_CANDIDATES = 16
"""Earlier places compared per step; more only matter in long runs of one repeated pair."""
MIN_CONFIDENCE = 0.1
"""Below this a drafted token is more likely to flicker on a screen than to save a step."""
RESYNC_WINDOW = 16
"""How far ahead in a prediction a single token is trusted to find the place again."""
CONTEXT_PRIOR = (0.0, 0.15, 0.35, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8)
PREDICTION_PRIOR = (0.6, 0.5, 0.7, 0.8, 0.85, 0.9, 0.92, 0.94, 0.95)
"""Assumed chance of acceptance after a match of 0 … MAX_MATCH tokens, until it is measured."""


class _Index:
    """Where in a growing list of tokens the last one and the last two occurred before."""

    __slots__ = ("_last_pair", "_last_single", "_previous", "length")

    def __init__(self) -> None:
        self.length = 0
        """Tokens taken in. Position p is the place after `tokens[p - 1]`, before `tokens[p]`."""
        self._last_single: dict[int, int] = {}
        self._last_pair: dict[tuple[int, int], int] = {}
        self._previous: list[int] = [0, 0]
        """By position: the position before it that follows the same pair; 0: none."""

    def extend(self, tokens: Sequence[int], end: int) -> None:
        """Take in the tokens before position `end`."""
        single, pairs, previous = self._last_single, self._last_pair, self._previous
        for position in range(self.length + 1, end + 1):
            token = tokens[position - 1]
            single[token] = position
            if position > 1:
                pair = (tokens[position - 2], token)
                previous.append(pairs.get(pair, 0))
                pairs[pair] = position
        self.length = max(self.length, end)

    def longest(self, tokens: Sequence[int]) -> tuple[int, int]:
        """(position, match length) of the most recent place before the end that follows the longest
        repeated end of `tokens`; (0, 0) if even the last token is new.
        """
        end = len(tokens)
        self.extend(tokens, end - 1)
        best = self._last_single.get(tokens[-1], 0)
        length = 1 if best else 0
        if end < 2:
            return best, length
        position = self._last_pair.get((tokens[-2], tokens[-1]), 0)
        for _ in range(MAX_CANDIDATES):
            if position == 0 or length == MAX_MATCH:
                break
            match = _agreement(tokens, position, tokens)
            if match > length:
                best, length = position, match
            position = self._previous[position]
        return best, length


def _agreement(source: Sequence[int], position: int, output: Sequence[int], floor: int = 0) -> int:
    """How many tokens before `position` equal those at the end of `output[floor:]`, at most
    MAX_MATCH.
    """
    limit = min(MAX_MATCH, position, len(output) - floor)
    match = 0
    while match < limit and source[position - match - 1] == output[-match - 1]:
        match += 1
    return match


class _Prediction:
    """The caller's guess at the output, followed with a cursor.

    The cursor starts at the beginning. Where the output leaves the prediction the cursor is lost;
    it is found again by the end of the output, first looking further on in the prediction (the
    usual edit replaces something and goes on), then anywhere.
    """

    __slots__ = ("_pairs", "_place", "_seen", "_singles", "_start", "cursor", "match", "tokens")

    def __init__(self, tokens: Sequence[int], start: int) -> None:
        """`start`: where the output begins in the sequence, after the prompt."""
        self.tokens = list(tokens)
        self._singles: dict[int, list[int]] = {}
        self._pairs: dict[tuple[int, int], list[int]] = {}
        for i, token in enumerate(self.tokens):
            self._singles.setdefault(token, []).append(i + 1)
            if i:
                self._pairs.setdefault((self.tokens[i - 1], token), []).append(i + 1)
        self._start = start
        self._seen = start
        self._place = 0
        """Where the output last agreed with the prediction for two tokens or more."""
        self.cursor: int | None = 0
        self.match = 0
        """How many tokens before the cursor agree with the output."""

    def follow(self, output: Sequence[int]) -> None:
        """Take in what the sequence has grown by."""
        for i in range(self._seen, len(output)):
            self._advance(output[i])
        if self.cursor is None and len(output) > self._seen:
            self._find(output)
        self._seen = len(output)

    def _advance(self, token: int) -> None:
        cursor = self.cursor
        if cursor is None or cursor >= len(self.tokens) or self.tokens[cursor] != token:
            self.cursor, self.match = None, 0
            return
        self.cursor = cursor + 1
        self.match += 1
        if self.match > 1:
            self._place = self.cursor

    def _find(self, output: Sequence[int]) -> None:
        last = output[-1]
        if len(output) - self._start > 1:
            places = self._pairs.get((output[-2], last), [])
            ahead = bisect_right(places, self._place)
            candidates = (places[ahead:] or places)[:MAX_CANDIDATES]
            if candidates:
                matches = [_agreement(self.tokens, p, output, self._start) for p in candidates]
                self.match = max(matches)
                self.cursor = self._place = candidates[matches.index(self.match)]
                return
        places = self._singles.get(last, [])
        ahead = bisect_right(places, self._place)
        if ahead < len(places) and places[ahead] <= self._place + RESYNC_WINDOW:
            self.cursor, self.match = places[ahead], 1


class _Stream:
    __slots__ = ("index", "last", "prediction")

    def __init__(self, prediction: _Prediction | None) -> None:
        self.index = _Index()
        self.prediction = prediction
        self.last: tuple[MatchChances, int] | None = None
        """Source and match length of the last proposal."""


class NgramDrafter:
    """A `Drafter` that copies; what it copies may well be a special token."""

    name = "ngram"

    def __init__(self) -> None:
        self._streams: dict[str, _Stream] = {}
        self._context = MatchChances(CONTEXT_PRIOR)
        self._predicted = MatchChances(PREDICTION_PRIOR)

    def begin(self, stream: str, prompt: Sequence[int], prediction: Sequence[int]) -> None:
        followed = _Prediction(prediction, len(prompt)) if prediction else None
        self._streams[stream] = _Stream(followed)

    def propose(self, items: Sequence[tuple[SequenceView, int]]) -> list[Proposal]:
        return [self._propose(view, budget) for view, budget in items]

    def follows_prediction(self, stream: str) -> bool:
        """Whether the stream's last proposal was copied from the caller's prediction."""
        last = self._streams[stream].last
        return last is not None and last[0] is self._predicted

    def observe(self, stream: str, drafted: int, accepted: int) -> None:
        state = self._streams[stream]
        if state.last is not None:
            calibration, match = state.last
            calibration.observe(match, drafted, accepted)
            state.last = None

    def end(self, stream: str) -> None:
        self._streams.pop(stream, None)

    def _propose(self, view: SequenceView, budget: int) -> Proposal:
        state = self._streams[view.stream]
        tokens = view.tokens
        source: Sequence[int] = tokens
        calibration = self._context
        position, match = state.index.longest(tokens)
        if state.prediction is not None:
            prediction = state.prediction
            prediction.follow(tokens)
            cursor = prediction.cursor
            if cursor is not None and cursor < len(prediction.tokens):
                chance = self._predicted.chance(prediction.match)
                if position == 0 or chance >= self._context.chance(match):
                    source, calibration = prediction.tokens, self._predicted
                    position, match = cursor, prediction.match
        state.last = (calibration, match)
        if source is tokens and position == 0:
            return Proposal([], [])
        return self._copy(source, position, calibration, match, budget, periodic=source is tokens)

    def _copy(
        self,
        source: Sequence[int],
        position: int,
        calibration: MatchChances,
        match: int,
        budget: int,
        *,
        periodic: bool,
    ) -> Proposal:
        """Copy from `source[position:]` while the chance of acceptance is worth it.

        `periodic`: a copy that reaches the end of the context goes on with itself, so that a loop
        is drafted whole.
        """
        proposal = Proposal([], [])
        confidence = 1.0
        for j in range(budget):
            place = position + j
            if place < len(source):
                token = source[place]
            elif periodic:
                token = proposal.tokens[place - len(source)]
            else:
                break
            confidence *= calibration.chance(match + j)
            if confidence < MIN_CONFIDENCE and (j > 0 or not calibration.explore(match)):
                break
            proposal.tokens.append(token)
            proposal.confidence.append(confidence)
        return proposal
