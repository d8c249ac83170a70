"""One request inside the engine: its tokens, how much of them is in the KV cache, where, and its
totals.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.sampling.params import SamplingParams


class Status(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    PREEMPTED = "preempted"
    FINISHED = "finished"


class Sequence:
    """Mutable state of one sequence.

    `tokens` is prompt then committed completion; drafts never enter it. `computed` tokens of it
    have their keys and values in the blocks of `block_table`; rolling a draft back is leaving
    `computed` where it is.
    """

    def __init__(
        self,
        stream: str,
        prompt: list[int],
        committed: list[int],
        sampling: SamplingParams,
        *,
        seed: int,
        priority: int,
        arrival: int,
        max_draft: int,
        drafter: str,
        salt: bytes = b"",
    ) -> None:
        self.stream = stream
        self.tokens = prompt + committed
        self.prompt_length = len(prompt)
        self.sampling = sampling
        self.seed = seed
        self.priority = priority
        self.arrival = arrival
        self.max_draft = max_draft
        self.drafter = drafter
        self.salt = salt
        self.status = Status.WAITING
        self.computed = 0
        self.block_table: list[int] = []
        self.hashed_blocks = 0
        """How many leading blocks are registered in the prefix cache under `block_hashes`."""
        self.block_hashes: list[bytes] = []
        self.preemptions = 0
        self.cached_prompt = 0
        self.drafted = 0
        self.accepted = 0
        self.steps = 0

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def completion_length(self) -> int:
        return len(self.tokens) - self.prompt_length

    @property
    def pending(self) -> int:
        """Tokens whose keys and values are still to be computed; 1 while decoding."""
        return len(self.tokens) - self.computed

    @property
    def remaining(self) -> int:
        """Completion tokens it may still produce."""
        return self.sampling.max_tokens - self.completion_length

    def preempted(self) -> None:
        """Its blocks are gone: all is computed again, bit for bit, when it is let back in."""
        self.status = Status.PREEMPTED
        self.preemptions += 1
        self.vacated()

    def vacated(self) -> None:
        """It holds no blocks (any more)."""
        self.computed = 0
        self.block_table = []
        self.hashed_blocks = 0
