"""Tokens per verification step, acceptance by place, calibration and speed of every drafter.

    .venv/bin/python -m benchmarks.drafters [--drafters head,combined] [--temperatures 0,0.7]

Through the real engine, one kind of task after another; drafters take turns on the same prompts, so
that a busy moment of the machine meets all of them.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any, NamedTuple

import msgspec

from benchmarks.drafters.prompts import KINDS, prompts
from engine.config import EngineConfig
from engine.engine import Engine
from engine.frames import ChatMessage, Drafted, Finished, Start, Step, Verified
from engine.sampling.params import SamplingParams

SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
LEVELS = 10
"""Bins of confidence for the calibration error."""


class Tally:
    """What one drafter did over some streams."""

    def __init__(self) -> None:
        self.tokens = self.steps = self.drafted = self.accepted = 0
        self.seconds = 0.0
        self.right: list[list[int]] = []
        """By place in the draft: tokens that were right, tokens reached."""
        self.bins = [[0.0, 0, 0] for _ in range(LEVELS)]
        """By confidence: its sum, tokens that were right, tokens."""

    def judge(self, drafted: list[tuple[int, float]], said: list[int]) -> None:
        """A draft as (token, confidence), and what the target said in its place."""
        right = True
        for place, (token, confidence) in enumerate(drafted):
            reached, right = right, right and place < len(said) and token == said[place]
            if place == len(self.right):
                self.right.append([0, 0])
            if reached:
                self.right[place][0] += right
                self.right[place][1] += 1
            found = self.bins[min(int(confidence * LEVELS), LEVELS - 1)]
            found[0] += confidence
            found[1] += right
            found[2] += 1

    @property
    def calibration_error(self) -> float:
        """Expected: the bins' distance of confidence and acceptance, weighed by their tokens."""
        count = sum(int(b[2]) for b in self.bins)
        return sum(abs(b[0] - b[1]) for b in self.bins) / count if count else 0.0


class Plan(NamedTuple):
    drafters: list[str]
    temperatures: list[float]
    length: int
    max_tokens: int


def main() -> int:
    options = _parser().parse_args()
    plan = Plan(
        options.drafters.split(","),
        [float(t) for t in options.temperatures.split(",")],
        options.length,
        options.max_tokens,
    )
    settings: dict[str, Any] = {"adaptive_draft": options.adaptive, "threads": options.threads}
    engine = Engine(msgspec.convert(settings, EngineConfig), lambda phase, fraction: None)
    sys.stdout.write("| task | T | drafter | tokens/step | drafted | by place | ECE | tok/s |\n")
    sys.stdout.write("|---|---|---|---|---|---|---|---|\n")
    for temperature in plan.temperatures:
        for kind in KINDS:
            tallies = {drafter: Tally() for drafter in plan.drafters}
            for seed, prompt in enumerate(prompts(kind)):
                for drafter, tally in tallies.items():
                    _stream(engine, plan, drafter, prompt, temperature, seed, tally)
            for drafter, tally in tallies.items():
                sys.stdout.write(_line(kind, temperature, drafter, tally))
                sys.stdout.flush()
    engine.close()
    return 0


def _stream(
    engine: Engine,
    plan: Plan,
    drafter: str,
    prompt: str,
    temperature: float,
    seed: int,
    tally: Tally,
) -> None:
    """One stream alone, as a reader meets it; the step that reads the prompt does not count."""
    sampling = SamplingParams(
        max_tokens=plan.max_tokens, temperature=temperature, top_p=1.0, seed=seed
    )
    start = Start(
        stream="s",
        prompt=None,
        messages=[ChatMessage("system", SYSTEM), ChatMessage("user", prompt)],
        sampling=sampling,
        drafter=None if drafter == "none" else drafter,
        draft_length=0 if drafter == "none" else plan.length,
        prediction=None,
        priority=0,
        want_drafts=True,
        committed=[],
        committed_chars=0,
    )
    pending: list[list[tuple[int, float]]] = []

    def take(step: Step) -> None:
        for _, event in step.events:
            if isinstance(event, Drafted):
                pending.append([(t.id, t.confidence) for t in event.tokens if t.confidence])
            elif isinstance(event, Verified) and pending:
                tally.judge(pending.pop(), [token.id for token in event.tokens])
            elif isinstance(event, Finished):
                tally.tokens += event.counts.completion - 1
                tally.steps += event.counts.steps - 1
                tally.drafted += event.counts.drafted
                tally.accepted += event.counts.accepted

    engine.add(start)
    engine.step(take)
    begun = time.perf_counter()
    while engine.has_work:
        engine.step(take)
    tally.seconds += time.perf_counter() - begun


def _line(kind: str, temperature: float, drafter: str, tally: Tally) -> str:
    places = " ".join(f"{hits / trials:.2f}" for hits, trials in tally.right if trials > 20)
    return (
        f"| {kind} | {temperature:g} | {drafter} | {tally.tokens / max(tally.steps, 1):.2f} |"
        f" {tally.drafted / max(tally.steps, 1):.1f} | {places} |"
        f" {tally.calibration_error:.3f} | {tally.tokens / tally.seconds:.0f} |\n"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drafters", description=__doc__)
    add = parser.add_argument
    add("--drafters", default="none,ngram,head,combined", help="comma-separated")
    add("--temperatures", default="0,0.7", help="comma-separated")
    add("--length", type=int, default=4, help="draft length (default: 4)")
    add("--max-tokens", type=int, default=128, help="per answer (default: 128)")
    add("--threads", type=int, help="compute threads (default: one per core)")
    add("--adaptive", action="store_true", help="let the engine choose the length up to --length")
    return parser


if __name__ == "__main__":
    sys.exit(main())
