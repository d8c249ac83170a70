"""Through HTTP with `hold`, and `transformers.generate` on the same device and checkpoint."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.engine.workloads import CHAT
from benchmarks.gpu.report import Figure
from benchmarks.peers.base import Answer, Request
from benchmarks.peers.processes import Process, free_port
from benchmarks.peers.wetink import NO_PREFIX_CACHE, READY_S, Wetink

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STEP = {"WETINK_ENGINE_MAX_STEP_TOKENS": "512"}
"""Room for 64 streams' drafts."""
PROGRAM = "import sys; from gateway.cli import main; sys.exit(main())"
AGAINST_TRANSFORMERS = {1: 5.0, 32: 10.0}
DRAFTED = {1: 1.7, 8: 1.4, 64: 0.97}
"""Bars of drafting with the head, by streams, as multiples of none."""


class Server(Wetink):
    """`wetink serve` of this checkout with any interpreter that has what it needs."""

    def __init__(self, *options: str) -> None:
        super().__init__(4, options)
        self._process = Process("wetink-gpu")

    def start(self) -> float:
        self._port = free_port()
        begin = time.perf_counter()
        command = [sys.executable, "-c", PROGRAM, "serve", "--port", str(self._port)]
        self._process.launch([*command, *self._options], NO_PREFIX_CACHE | STEP)
        self._process.wait_until_ok(self._port, "/readyz", READY_S)
        return time.perf_counter() - begin


def rates(
    server: Server, streams: tuple[int, ...], tokens: int, drafter: str | None, rounds: int
) -> Iterator[tuple[int, float, list[float]]]:
    """(streams, tokens per second, seconds to each first committed token); the first round warms
    up.
    """
    for count in streams:
        texts = [CHAT[n % len(CHAT)] for n in range(count)]
        asked = [Request(text, tokens, ignore_eos=True, drafter=drafter) for text in texts]
        found: list[float] = []
        waits: list[float] = []
        for number in range(rounds + 1):
            answers: list[Answer] = asyncio.run(server.ask(asked))
            if number:
                longest = max(answer.total_s for answer in answers)
                found.append(sum(answer.tokens for answer in answers) / longest)
                waits += [answer.first_s for answer in answers]
        yield count, statistics.median(found), waits


def served_figures(
    server: Server, streams: tuple[int, ...], tokens: int, rounds: int, *, head: bool
) -> Iterator[Figure]:
    """`head`: the model has a draft head."""
    plain: dict[int, float] = {}
    for count, rate, waits in rates(server, streams, tokens, None, rounds):
        plain[count] = rate
        yield Figure(f"HTTP, hold, {count} streams, no drafts", "tokens/s", rate)
        ordered = sorted(waits)
        last = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
        yield Figure(
            f"HTTP, {count} streams: first committed token, p50",
            "ms",
            1000 * statistics.median(waits),
        )
        yield Figure(f"HTTP, {count} streams: first committed token, p99", "ms", 1000 * last)
    for drafter in ("ngram", *(("head",) if head else ())):
        for count, rate, _ in rates(server, streams, tokens, drafter, rounds):
            yield Figure(
                f"HTTP, hold, {count} streams: {drafter} ÷ no drafts",
                "×",
                rate / plain[count],
                DRAFTED.get(count) if drafter == "head" else None,
            )


def transformers_figures(
    folder: Path, device: torch.device, ours: dict[int, float], tokens: int
) -> Iterator[Figure]:
    """`ours`: tokens per second of Wetink through HTTP, by streams."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    model = model.to(device).eval()
    for count, rate in ours.items():
        prompt = torch.full((count, 32), 5, device=device)
        seconds: list[float] = []
        for _ in range(2):
            begin = time.perf_counter()
            with torch.inference_mode():
                model.generate(
                    prompt,
                    attention_mask=torch.ones_like(prompt),
                    max_new_tokens=tokens,
                    min_new_tokens=tokens,
                    do_sample=False,
                    pad_token_id=0,
                )
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - begin)
        theirs = count * tokens / seconds[-1]
        yield Figure(f"transformers.generate, {count} streams", "tokens/s", theirs)
        wanted = AGAINST_TRANSFORMERS.get(count)
        yield Figure(f"Wetink through HTTP ÷ it, {count} streams", "×", rate / theirs, wanted)
