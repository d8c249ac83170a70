"""Listening to one stream's drafts, to compare them between engines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.frames import Drafted, Start, Step, Verified
from tests.generation import request, scheduler_of

if TYPE_CHECKING:
    from engine.engine import Engine

PROMPT = "The ink is wet, the ink is dry; the ink is"


def start_of(
    stream: str, *, drafter: str = "model", committed: list[int] | None = None, chars: int = 0
) -> Start:
    return request(
        stream,
        PROMPT,
        drafter=drafter,
        temperature=0.7,
        seed=8,
        max_tokens=48,
        ignore_eos=True,
        committed=committed,
        committed_chars=chars,
    )


class Listener:
    """Drafts of stream "s", by how many tokens of it were committed when they were made."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.drafts: dict[int, list[int]] = {}
        self.tokens: list[int] = []
        self.lengths: list[int] = [0]
        """Code points after each token."""

    def run(self) -> None:
        while self.engine.has_work:
            self.engine.step(self.take)
            self.engine.check_integrity()

    def take(self, step: Step) -> None:
        for stream, event in step.events:
            if isinstance(event, Drafted) and stream == "s":
                (sequence,) = [s for s in scheduler_of(self.engine).sequences() if s.stream == "s"]
                # Tokens held back for an incomplete character stand before the draft.
                held = sequence.completion_length - len(self.tokens)
                self.drafts[sequence.completion_length] = [t.id for t in event.tokens[held:]]
            elif isinstance(event, Verified) and stream == "s":
                for token in event.tokens:
                    self.tokens.append(token.id)
                    self.lengths.append(self.lengths[-1] + token.n)


def assert_same_drafts(some: dict[int, list[int]], others: dict[int, list[int]]) -> None:
    """Where both drafted; one may have had less room."""
    common = some.keys() & others.keys()
    assert len(common) >= 5
    for length in common:
        shorter, longer = sorted((some[length], others[length]), key=len)
        assert longer[: len(shorter)] == shorter, f"after {length} tokens"
