"""What all streams of a gateway add up to since it started. Written where it happens, once per
stream or less; read by whoever reports it (gateway/telemetry).
"""

from __future__ import annotations

from collections import Counter

from gateway.policies.resolve import KINDS
from protocol.ledger import Completed, Failed
from protocol.stats import Tally

REASONS = frozenset({"stop", "length", "cancelled", "tool_calls", "content_filter"})
OTHER = "other"
"""Stands for reasons that this version does not know: a backend cannot make labels grow."""


class Totals:
    """Bounded: by the kinds of policies, causes, reasons and codes there are."""

    def __init__(self) -> None:
        self.tallies = {kind: Tally() for kind in KINDS}
        """What attachments saw, by the kind of their policy."""
        self.started = 0
        self.ended: Counter[str] = Counter()
        """By reason, or by the code that a stream failed with."""
        self.refused: Counter[str] = Counter()
        """Generations that did not begin, by code."""
        self.degraded: Counter[str] = Counter()
        """Those that began with less, by what they were given less of."""
        self.prompt_tokens = 0
        self.cached_prompt_tokens = 0
        self.completion_tokens = 0
        self.drafted_tokens = 0
        self.accepted_tokens = 0
        self.steps = 0

    def count_end(self, ending: Completed | Failed) -> None:
        """A stream has ended; tokens are known of those that were completed."""
        match ending:
            case Completed(reason=reason, usage=usage, steps=steps):
                self.ended[reason if reason in REASONS else OTHER] += 1
                self.prompt_tokens += usage.prompt_tokens
                self.cached_prompt_tokens += usage.cached_prompt_tokens
                self.completion_tokens += usage.completion_tokens
                self.drafted_tokens += usage.drafted_tokens
                self.accepted_tokens += usage.accepted_tokens
                self.steps += steps
            case Failed(code=code):
                self.ended[code] += 1
