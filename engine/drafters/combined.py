"""A head and prompt lookup in one: for each sequence whichever expects more of its draft to hold.

Lookup is asked first, for it costs next to nothing; where it is surer than the head usually is, as
while a text is copied or a prediction followed, the head is not run at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.drafters.base import Proposal, SequenceView
    from engine.drafters.eagle import EagleDrafter
    from engine.drafters.ngram import NgramDrafter

PREDICTION_HOLDS = 0.5


class _Trial(NamedTuple):
    """A copy that was proposed, or could have been, and the text it was to follow."""

    view: SequenceView
    length: int
    copied: list[int]


class CombinedDrafter:
    """A `Drafter` over two others, which only it uses."""

    name = "combined"

    def __init__(self, head: EagleDrafter, ngram: NgramDrafter) -> None:
        self._head = head
        self._ngram = ngram
        self._trials: dict[str, _Trial] = {}
        """By stream: the last copy, not yet compared with what the target said."""
        self._from_head: set[str] = set()
        """Streams whose last proposal was the head's."""

    def begin(self, stream: str, prompt: Sequence[int], prediction: Sequence[int]) -> None:
        self._head.begin(stream, prompt, prediction)
        self._ngram.begin(stream, prompt, prediction)

    def propose(self, items: Sequence[tuple[SequenceView, int]]) -> list[Proposal]:
        for view, _ in items:
            self._judge_copy(view.stream)
        proposals = self._ngram.propose(items)
        for (view, _), copy in zip(items, proposals, strict=True):
            if copy.tokens:
                self._trials[view.stream] = _Trial(view, len(view.tokens), copy.tokens)
        asked = [
            n
            for n, (view, limit) in enumerate(items)
            if not self._is_enough(view.stream, proposals[n], limit)
        ]
        self._from_head.difference_update(view.stream for view, _ in items)
        for n, guess in zip(asked, self._head.propose([items[n] for n in asked]), strict=True):
            if sum(guess.confidence) > sum(proposals[n].confidence):
                proposals[n] = guess
                self._from_head.add(items[n][0].stream)
        return proposals

    def observe(self, stream: str, drafted: int, accepted: int) -> None:
        if stream in self._from_head:
            self._head.observe(stream, drafted, accepted)
        # The copy is judged by the text itself, whoever's draft was verified.

    def end(self, stream: str) -> None:
        self._judge_copy(stream)
        self._from_head.discard(stream)
        self._head.end(stream)
        self._ngram.end(stream)

    def _is_enough(self, stream: str, copy: Proposal, limit: int) -> bool:
        """Whether the head need not be asked. The caller's prediction goes first as long as it
        holds more often than not: it may know what no model does.
        """
        if not copy.tokens:
            return False
        if self._ngram.follows_prediction(stream) and copy.confidence[0] >= PREDICTION_HOLDS:
            return True
        return sum(copy.confidence) >= self._head.expected(limit)

    def _judge_copy(self, stream: str) -> None:
        """Tell the copier how far its last proposal went with the text there is by now."""
        trial = self._trials.pop(stream, None)
        if trial is None:
            return
        said = trial.view.tokens[trial.length : trial.length + len(trial.copied)]
        right = 0
        while right < len(said) and said[right] == trial.copied[right]:
            right += 1
        # What the text has not reached yet was neither right nor wrong.
        drafted = len(said) if right == len(said) else right + 1
        if drafted:
            self._ngram.observe(stream, drafted, right)
