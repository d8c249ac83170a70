"""The closing line of `wetink stream`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from protocol.events import Finish

if TYPE_CHECKING:
    from collections.abc import Sequence

    from protocol.events import ServerEvent


class Summary:
    """What the command says at the end. Speed by this clock, the rest as the server counted."""

    def __init__(self, started_at: float) -> None:
        self.opened = False
        self._started_at = started_at
        self._ended_at: float | None = None
        self._finish: Finish | None = None

    def add(self, event: ServerEvent, now: float) -> None:
        self.opened = True
        if isinstance(event, Finish):
            self._finish = event
            self._ended_at = now

    def fields(self, now: float) -> list[str]:
        elapsed = (self._ended_at or now) - self._started_at
        if self._finish is None:
            return [f"no closing statistics after {elapsed:.2f} s"]
        usage, stats = self._finish.usage, self._finish.stats
        tokens = usage.completion_tokens
        return [
            f"{tokens} tokens in {elapsed:.2f} s ({tokens / max(elapsed, 1e-3):.1f} tokens/s)",
            f"acceptance {_percent(stats.acceptance_rate)}",
            f"TTFV {_milliseconds(stats.ttfv_ms)}",
            f"TTC {_milliseconds(stats.ttc_ms)}",
            f"NE {stats.normalized_erasure:.3f}",
            f"{stats.retractions} retraction{'' if stats.retractions == 1 else 's'}",
            self._finish.reason,
        ]


def wrapped(fields: Sequence[str]) -> str:
    """In one line, on a narrow terminal in several, none cut in the middle of a field."""
    columns = os.get_terminal_size(sys.stderr.fileno()).columns if sys.stderr.isatty() else 0
    lines = [fields[0]]
    for field in fields[1:]:
        longer = f"{lines[-1]} · {field}"
        if columns and len(longer) > columns:
            lines.append(field)
        else:
            lines[-1] = longer
    return "\n".join(lines)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _milliseconds(time_ms: float | None) -> str:
    return "-" if time_ms is None else f"{time_ms:.0f} ms"
