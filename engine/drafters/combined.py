"""A head and copiers in one: for each sequence whichever expects more of its draft to hold.

Copiers are asked first, for they cost next to nothing; where one is surer than the head usually is,
as while a text is copied or a prediction followed, the head is not run at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.drafters.base import Drafter, Proposal, SequenceView
    from engine.drafters.eagle import EagleDrafter
    from engine.drafters.ngram import NgramDrafter

PREDICTION_HOLDS = 0.5


class _Trial(NamedTuple):
    """A copy that was proposed, or could have been, and the text it was to follow."""

    copier: Drafter
    view: SequenceView
    length: int
    copied: list[int]


class CombinedDrafter:
    """A `Drafter` over others, which only it uses."""

    name = "combined"

    def __init__(self, head: EagleDrafter, ngram: NgramDrafter, *copiers: Drafter) -> None:
        """`ngram` also follows the caller's prediction; further `copiers` are preferred to it where
        they are surer.
        """
        self._head = head
        self._ngram = ngram
        self._copiers: list[Drafter] = [ngram, *copiers]
        self._trials: dict[str, list[_Trial]] = {}
        """By stream: the last copies, not yet compared with what the target said."""
        self._from_head: set[str] = set()
        """Streams whose last proposal was the head's."""

    def begin(self, stream: str, prompt: Sequence[int], prediction: Sequence[int]) -> None:
        self._head.begin(stream, prompt, prediction)
        for copier in self._copiers:
            copier.begin(stream, prompt, prediction)

    def propose(self, items: Sequence[tuple[SequenceView, int]]) -> list[Proposal]:
        for view, _ in items:
            self._judge_copies(view.stream)
        offers = [copier.propose(items) for copier in self._copiers]
        proposals: list[Proposal] = []
        asked: list[int] = []
        for n, (view, limit) in enumerate(items):
            copies = [offer[n] for offer in offers]
            self._trials[view.stream] = [
                _Trial(copier, view, len(view.tokens), copy.tokens)
                for copier, copy in zip(self._copiers, copies, strict=True)
                if copy.tokens
            ]
            copy, enough = self._chosen(view.stream, copies, limit)
            proposals.append(copy)
            if not enough:
                asked.append(n)
        self._from_head.difference_update(view.stream for view, _ in items)
        for n, guess in zip(asked, self._head.propose([items[n] for n in asked]), strict=True):
            if sum(guess.confidence) > sum(proposals[n].confidence):
                proposals[n] = guess
                self._from_head.add(items[n][0].stream)
        return proposals

    def observe(self, stream: str, drafted: int, accepted: int) -> None:
        if stream in self._from_head:
            self._head.observe(stream, drafted, accepted)
        # Copies are judged by the text itself, whoever's draft was verified.

    def end(self, stream: str) -> None:
        self._judge_copies(stream)
        self._from_head.discard(stream)
        self._head.end(stream)
        for copier in self._copiers:
            copier.end(stream)

    def _chosen(self, stream: str, copies: list[Proposal], limit: int) -> tuple[Proposal, bool]:
        """The best copy, and whether the head need not be asked. The caller's prediction goes first
        as long as it holds more often than not: it may know what no model does.
        """
        first = copies[0]
        predicted = bool(first.tokens) and self._ngram.follows_prediction(stream)
        if predicted and first.confidence[0] >= PREDICTION_HOLDS:
            return first, True
        best = max(copies, key=lambda copy: sum(copy.confidence))
        enough = bool(best.tokens) and sum(best.confidence) >= self._head.expected(stream, limit)
        return best, enough

    def _judge_copies(self, stream: str) -> None:
        """Tell the copiers how far their last proposals went with the text there is by now."""
        for copier, view, length, copied in self._trials.pop(stream, []):
            said = view.tokens[length : length + len(copied)]
            right = 0
            while right < len(said) and said[right] == copied[right]:
                right += 1
            # What the text has not reached yet was neither right nor wrong.
            drafted = len(said) if right == len(said) else right + 1
            if drafted:
                copier.observe(stream, drafted, right)
