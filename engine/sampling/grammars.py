"""The grammars of all live streams, and their masks, which are made while a step runs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from engine.drafters.base import Proposal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from engine.sampling.grammar import GrammarState, Masks


class Grammars:
    """Between `prepare` and `masks` a thread of its own works on the states; all else is for the
    engine's.
    """

    def __init__(self) -> None:
        self._states: dict[str, GrammarState] = {}
        self._making: Future[dict[str, Masks]] | None = None
        self._maker = ThreadPoolExecutor(1, "grammar masks")

    def begin(self, stream: str, state: GrammarState) -> None:
        self._states[stream] = state

    def end(self, stream: str) -> None:
        """Idempotent."""
        self._states.pop(stream, None)

    def forced(self, stream: str, limit: int) -> Proposal | None:
        """What the grammar leaves no choice about, which needs no drafter."""
        state = self._states.get(stream)
        if state is None or not limit:
            return None
        tokens = state.forced(limit)
        return Proposal(tokens, [1.0] * len(tokens), forced=True) if tokens else None

    def cut(self, stream: str, proposal: Proposal) -> Proposal:
        """As much of it as the grammar allows; the rest could not be accepted."""
        state = self._states.get(stream)
        if state is None or not proposal.tokens:
            return proposal
        return proposal.first(state.allowed(proposal.tokens))

    def prepare(self, drafts: Sequence[tuple[str, list[int]]]) -> None:
        """Begins the masks of a step: streams, and what is drafted for each."""
        concerned = [
            (stream, state, draft)
            for stream, draft in drafts
            if (state := self._states.get(stream)) is not None
        ]
        self._making = self._maker.submit(_masks, concerned) if concerned else None

    def masks(self, stream: str) -> Masks | None:
        """Of the step prepared last; None where the stream has no grammar."""
        return None if self._making is None else self._making.result().get(stream)

    def advance(self, stream: str, tokens: Sequence[int]) -> None:
        """Committed."""
        state = self._states.get(stream)
        if state is not None:
            state.advance(tokens)

    def error(self, stream: str) -> str:
        """Why the stream cannot go on, where that is its grammar's fault; else empty."""
        state = self._states.get(stream)
        return "" if state is None else state.error

    def close(self) -> None:
        self._maker.shutdown()
        self._states.clear()


def _masks(concerned: list[tuple[str, GrammarState, list[int]]]) -> dict[str, Masks]:
    return {stream: state.masks(draft) for stream, state, draft in concerned}
