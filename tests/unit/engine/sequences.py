"""Sequences without an engine."""

from __future__ import annotations

from typing import Any

from engine.sampling.params import SamplingParams
from engine.scheduling.sequence import Sequence


def sequence(
    name: str,
    prompt: list[int],
    *,
    committed: list[int] | None = None,
    max_tokens: int = 100,
    **changes: Any,
) -> Sequence:
    settings: dict[str, Any] = {
        "seed": 0,
        "priority": 0,
        "arrival": 0,
        "max_draft": 0,
        "drafter": "none",
    }
    params = SamplingParams(max_tokens=max_tokens)
    return Sequence(name, prompt, committed or [], params, **(settings | changes))
