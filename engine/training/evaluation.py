"""Stage "evaluate": how often the head says what the target says, along recorded texts.

Two figures. *Acceptance* at place i: over all rows of the answers, how often step i of the unrolled
head chooses the target's token, having read the text as recorded. *Tokens per step*: a walk over
each answer as decoding takes it: a draft from where the last one ended, as far as it is right, and
the target's own token behind it. The walk meets hard places more often than the rows do, for a
draft that fails there is followed by one that begins there: it is the figure a reader feels.

With a temperature, target and head choose with the same Gumbel noise, fresh for each document.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from engine.training.head import visible_rows
from engine.training.losses import ahead

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from engine.training.documents import Document
    from engine.training.head import TrainableHead
    from engine.training.target import Target

DRAFT_LENGTH = 4


class Figures(NamedTuple):
    acceptance: list[float]
    """By place in the draft."""
    tokens_per_step: float
    rows: int
    """Answer tokens judged."""
    error: float
    """Of tokens_per_step: one standard error, over documents."""


class Marks(NamedTuple):
    """Of one document: whether step i from draft n was right, and where the text ends.

    Draft n begins behind the answer's n-th token; step i of it foretells token n + 1 + i.
    """

    right: NDArray[np.bool_]  # [steps, drafts]


class Tally:
    """Adds up documents."""

    def __init__(self, steps: int) -> None:
        self._right = np.zeros(steps, np.int64)
        self._seen = np.zeros(steps, np.int64)
        self._walks: list[tuple[int, int]] = []

    def add(self, marks: Marks) -> None:
        steps, drafts = marks.right.shape
        for step in range(steps):
            reached = max(drafts - step, 0)
            self._right[step] += int(marks.right[step, :reached].sum())
            self._seen[step] += reached
        self.walked(*walk(marks.right[:DRAFT_LENGTH]))

    def walked(self, tokens: int, steps: int) -> None:
        """A document whose walk is known."""
        if steps:
            self._walks.append((tokens, steps))

    def figures(self) -> Figures:
        tokens, steps = np.array(self._walks or [(0, 1)], np.float64).T
        ratio = tokens.sum() / steps.sum()
        spread = np.sqrt(((tokens - ratio * steps) ** 2).sum()) / steps.sum()
        seen = np.maximum(self._seen, 1)
        acceptance = (self._right / seen).tolist()
        return Figures(acceptance, float(ratio), int(tokens.sum()), float(spread))


def walk(right: NDArray[np.bool_]) -> tuple[int, int]:
    """(tokens, verification steps) that an answer takes with drafts of len(right) tokens. A draft
    reaches no further than the text; the step that ends it counts whole.
    """
    length, drafts = right.shape
    place = steps = 0
    while place < drafts:
        accepted = 0
        while accepted < min(length, drafts - place) and right[accepted, place]:
            accepted += 1
        place += accepted + 1
        steps += 1
    return min(place, drafts), steps


class Judge:
    """Target and head in torch, and the head's words."""

    def __init__(self, target: Target, head: TrainableHead, tokens: NDArray[Any]) -> None:
        self._target, self._head = target, head
        self._tokens = torch.from_numpy(tokens.astype(np.int64)).to(target.embedding.device)

    @torch.no_grad()
    def marks(self, document: Document, temperature: float, steps: int, seed: int) -> Marks:
        """`seed` of the noise."""
        device = self._target.embedding.device
        tokens = torch.tensor([document.tokens], device=device)
        visible = visible_rows(torch.ones_like(tokens))
        reading = self._target.read(tokens, visible)
        # Row n - 1 chooses token n; the first that is drafted is the answer's second.
        first = document.start - 1
        drafts = tokens.shape[1] - document.start - 1
        logits = self._target.logits(reading.states[0])
        noise = None
        if temperature > 0:
            generator = torch.Generator(device).manual_seed(seed)
            uniform = torch.empty_like(logits).exponential_(generator=generator)
            noise = -uniform.log() * temperature
        chosen = (logits if noise is None else logits + noise).argmax(-1)
        weight = self._head.fc.weight.dtype
        right: list[NDArray[np.bool_]] = []
        unrolled = self._head.unroll(
            reading.features.to(weight), tokens, self._target.embedding, visible, steps
        )
        for step, guesses in enumerate(unrolled):
            said = guesses[0].float()
            if noise is not None:
                said = said + ahead(noise[None], step)[0][:, self._tokens]
            guess = self._tokens[said.argmax(-1)]
            same = guess == ahead(chosen[None], step)[0]
            right.append(same[first : first + drafts].cpu().numpy())
        return Marks(np.stack(right))


def evaluate(
    judge: Judge, documents: Iterable[Document], temperature: float, steps: int
) -> Figures:
    tally = Tally(steps)
    for number, document in enumerate(documents):
        if len(document.tokens) > document.start + 1:
            tally.add(judge.marks(document, temperature, steps, number))
    return tally.figures()


def table(rows: dict[tuple[str, float], Figures]) -> Iterator[str]:
    """Lines of Markdown."""
    yield "| task | T | acceptance by place | tokens per step | ± | tokens |"
    yield "|---|---|---|---|---|---|"
    for (kind, temperature), found in rows.items():
        places = " ".join(f"{share:.3f}" for share in found.acceptance)
        yield (
            f"| {kind} | {temperature:g} | {places} | {found.tokens_per_step:.2f} |"
            f" {found.error:.2f} | {found.rows} |"
        )
