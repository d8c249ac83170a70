"""The measures, one function each: what is asked of which column, and what comes of it."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import msgspec

from benchmarks.engine import bars, workloads
from benchmarks.engine.rounds import Column, Figures, Row, alternate
from benchmarks.peers.base import Answer, PeerError, Request

STREAMS = (1, 8, 32)
BUSY_PROCESSES = 2
STARTED_REQUESTS = 10


class Plan(msgspec.Struct, frozen=True):
    """How much is measured."""

    repeats: int
    max_tokens: int
    """Of every answer to a chat prompt."""
    copied_tokens: int
    """At most, of an answer that copies."""


Columns: TypeAlias = Mapping[str, Column]
Measure: TypeAlias = Callable[[Columns, Plan], Awaitable[list[Row]]]


async def throughput(columns: Columns, plan: Plan) -> list[Row]:
    """Tokens per second of all streams together, and the median wait for the first token."""
    result: list[Row] = []
    for streams in STREAMS:
        plural = "" if streams == 1 else "s"
        rate = Row(f"chat, {streams} stream{plural}", "tokens/s")
        name = f"first committed token p50, {streams} stream{plural}"
        first = Row(name, "ms", higher_is_better=False)
        accepted = Row(f"drafts accepted, {streams} stream{plural}", "%")
        requests = workloads.chat(streams, plan.max_tokens)

        async def turn(
            column: Column,
            requests: Sequence[Request] = requests,
            names: tuple[str, str, str] = (rate.name, first.name, accepted.name),
        ) -> Figures:
            answers = await _ask(column, requests)
            p50 = statistics.median(answer.first_s for answer in answers) * 1000
            figures = {names[0]: _rate(answers), names[1]: p50}
            return figures | _acceptance(names[2], answers)

        rows = [rate, first, accepted]
        await alternate(list(columns.values()), plan.repeats, turn, rows, warm_up=True)
        result += rows
    return sorted(result, key=lambda row: (row.unit != "tokens/s", row.unit != "ms"))


async def prefill(columns: Columns, plan: Plan) -> list[Row]:
    """Prompt tokens per second until the first token of the answer."""
    row = Row("prefill of 2,000 tokens", "tokens/s")

    async def turn(column: Column) -> Figures:
        answer = (await column.ask([workloads.long_prompt()]))[0]
        return {row.name: answer.prompt_tokens / answer.first_s}

    measured = [column for column in columns.values() if column.drafter is None]
    await alternate(measured, plan.repeats, turn, [row], warm_up=True)
    return [row]


async def copying(columns: Columns, plan: Plan) -> list[Row]:
    """One stream whose answer repeats its question, with drafts and without."""
    cases = {
        "edit code, with prediction": workloads.edit(plan.copied_tokens),
        "summarise": workloads.summarise(plan.copied_tokens),
    }
    rows = [Row(name, "tokens/s") for name in cases]
    rows += [Row(f"drafts accepted, {name}", "%") for name in cases]

    async def turn(column: Column) -> Figures:
        figures: dict[str, float] = {}
        for name, request in cases.items():
            answers = await column.ask([request])
            figures[name] = _rate(answers)
            figures |= _acceptance(f"drafts accepted, {name}", answers)
        return figures

    await alternate(_some(columns, *bars.OURS), plan.repeats, turn, rows, warm_up=True)
    return rows


async def busy(columns: Columns, plan: Plan) -> list[Row]:
    """One stream, alone on the machine and then beside others who want all of it."""
    quiet = Row("chat, 1 stream, quiet", "tokens/s")
    beside = Row("chat, 1 stream, beside two busy processes", "tokens/s")
    kept = Row("kept beside two busy processes", "%")
    requests = workloads.chat(1, plan.max_tokens // 2)

    async def turn(column: Column) -> Figures:
        alone = _rate(await _ask(column, requests))
        with busy_processes(BUSY_PROCESSES):
            crowded = _rate(await _ask(column, requests))
        return {quiet.name: alone, beside.name: crowded, kept.name: 100 * crowded / alone}

    rows = [kept, quiet, beside]
    some = _some(columns, bars.PLAIN, bars.LLAMACPP)
    await alternate(some, plan.repeats, turn, rows, warm_up=False)
    return rows


async def start(columns: Columns, plan: Plan) -> list[Row]:
    """From the command to ready, caches warm; then whether the first request pays for others."""
    ready = Row("warm start", "s", higher_is_better=False)
    first = Row("first request's rate, of the sixth to tenth's", "%")
    asked = workloads.chat(STARTED_REQUESTS, plan.max_tokens // 2)

    async def turn(column: Column) -> Figures:
        column.peer.stop()
        seconds = column.peer.start()
        rates = [_rate(await _ask(column, [request])) for request in asked]
        settled = statistics.median(rates[len(rates) // 2 :])
        return {ready.name: seconds, first.name: 100 * rates[0] / settled}

    some = _some(columns, bars.PLAIN, bars.LLAMACPP)
    await alternate(some, plan.repeats, turn, [ready, first], warm_up=False)
    return [ready, first]


MEASURES: dict[str, Measure] = {
    "throughput": throughput,
    "prefill": prefill,
    "copying": copying,
    "busy": busy,
    "start": start,
}


def _some(columns: Columns, *names: str) -> list[Column]:
    return [columns[name] for name in names if name in columns]


async def _ask(column: Column, requests: Sequence[Request]) -> list[Answer]:
    """Raises PeerError when an answer is shorter than was asked: its rate would mean nothing."""
    answers = await column.ask(requests)
    for request, answer in zip(requests, answers, strict=True):
        if request.ignore_eos and answer.tokens != request.max_tokens:
            raise PeerError(f"said {answer.tokens} tokens instead of {request.max_tokens}")
    return answers


def _rate(answers: Sequence[Answer]) -> float:
    """All sent at once, so the longest took as long as all."""
    return sum(a.tokens for a in answers) / max(a.total_s for a in answers)


def _acceptance(name: str, answers: Sequence[Answer]) -> dict[str, float]:
    drafted = sum(answer.drafted for answer in answers)
    return {name: 100 * sum(a.accepted for a in answers) / drafted} if drafted else {}


@contextmanager
def busy_processes(number: int) -> Iterator[None]:
    """Each takes whatever a core gives it."""
    command = [sys.executable, "-I", "-c", "print(flush=True)\nwhile True: pass"]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(number)]
    try:
        for child in children:
            assert child.stdout is not None
            child.stdout.readline()  # from here on it is busy
        yield
    finally:
        for child in children:
            child.kill()
            child.communicate()
