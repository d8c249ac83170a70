"""What a step costs, host work around it included: from spans to verdicts in the host's hands."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, NamedTuple

import torch

from benchmarks.gpu.report import Figure
from benchmarks.gpu.shapes import BLOCK, LARGE, MIDDLE, SMALL, model_of, runner_of
from engine.model.batch import Span
from engine.planning.memory import weight_bytes
from engine.sampling.params import SamplingParams
from engine.sampling.sampler import Judged, Sampler

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from engine.model.graph_runner import GraphRunner
    from engine.model.llama import ModelShape

TIED = {SMALL, MIDDLE}
LEAST_ROWS = 64
"""Of the largest step in which bits are compared."""
DRAFT = 4
"""Tokens drafted where drafts are verified: five rows a stream."""
ONE_STREAM = {SMALL: ("ms", 1.0), MIDDLE: ("share", 0.55), LARGE: ("share", 0.75)}
"""Bars at one stream: milliseconds at most, or the least share of copy bandwidth."""
MANY, VERIFYING, EXACT = 1.15, 1.35, 1.10
"""Bars of 64 streams, of five rows each, and of exact mode, as multiples at most."""


class Plan(NamedTuple):
    device: torch.device
    shapes: Mapping[str, ModelShape]
    context: int
    streams: int
    repeats: int


def copy_bandwidth(plan: Plan) -> float:
    """Bytes per second, read and written counted both, of copying within the device."""
    size = (1 << 30) if plan.device.type == "cuda" else (1 << 22)
    source = torch.empty(size, dtype=torch.uint8, device=plan.device)
    target = torch.empty_like(source)
    seconds = _median(plan, lambda: target.copy_(source))
    return 2 * size / seconds


def step_figures(plan: Plan, name: str, bandwidth: float) -> Iterator[Figure]:
    """Of one shape. Figures come as they are measured: what comes later may fail."""
    shape = plan.shapes[name]
    model = model_of(shape, tied=name in TIED, exact=False, device=plan.device)
    most = plan.streams * (DRAFT + 1)
    runner = runner_of(model, context=plan.context + 64, most_rows=most, sequences=plan.streams)
    one = _step_seconds(plan, runner, 1, 1)
    unit, bar = ONE_STREAM[name]
    share = weight_bytes(shape, 2, tied=name in TIED) / one / bandwidth
    of = f"{name}, 1 stream, {plan.context} tokens of context"
    yield Figure(f"{of}: a step", "ms", 1000 * one, bar if unit == "ms" else None, "at most")
    yield Figure(
        f"{of}: weights read, of copy bandwidth", "", share, bar if unit == "share" else None
    )
    many = _step_seconds(plan, runner, plan.streams, 1)
    large = name == LARGE
    yield Figure(
        f"{name}, {plan.streams} streams ÷ 1", "×", many / one, MANY if large else None, "at most"
    )
    verifying = _step_seconds(plan, runner, plan.streams, DRAFT + 1)
    yield Figure(
        f"{name}, {plan.streams} streams × {DRAFT + 1} rows ÷ 1 × 1",
        "×",
        verifying / one,
        VERIFYING if large else None,
        "at most",
    )
    noisy = _step_seconds(plan, runner, 1, 1, temperature=0.8, top_p=0.9)
    yield Figure(f"{of}: a step with temperature and top-p", "ms", 1000 * noisy)
    yield from _shown_host_work(plan, runner, name)
    runner.close()


def exact_figures(plan: Plan, name: str) -> Iterator[Figure]:
    """Exact mode beside fast, and whether a row keeps its bits in any company."""
    shape = plan.shapes[name]
    seconds: dict[bool, list[float]] = {}
    for exact in (False, True):
        model = model_of(shape, tied=name in TIED, exact=exact, device=plan.device)
        runner = runner_of(
            model,
            context=plan.context + 64,
            most_rows=max(plan.streams, LEAST_ROWS),
            sequences=plan.streams,
        )
        seconds[exact] = [_step_seconds(plan, runner, n, 1) for n in (1, plan.streams)]
        if exact:
            rows = model.row_sizes
            assert rows is not None, "exact mode has sizes of its own"
            yield Figure(f"{name}, exact: rows computed at a time", "", rows[-1])
            yield Figure(
                f"{name}, exact: rows that changed bits", "", _changed(plan, runner), 0, "at most"
            )
        runner.close()
        del model, runner
        _forget(plan)
    for place, streams in enumerate((1, plan.streams)):
        ratio = seconds[True][place] / seconds[False][place]
        yield Figure(f"{name}, exact ÷ fast, {streams} streams", "×", ratio, EXACT, "at most")


def _changed(plan: Plan, runner: GraphRunner) -> int:
    """How many rows of one text have other logits in drafts and beside others than alone."""
    tokens = [(7 * n) % 300 for n in range(plan.context)]
    tables = [_table(plan, n) for n in range(plan.streams)]
    for table in tables[:8]:
        for start in range(0, plan.context - 8, 32):
            part = tokens[start : min(start + 32, plan.context - 8)]
            runner.run([Span(part, start, table, len(part))])
    last = range(plan.context - 8, plan.context)
    alone = [runner.run([Span([tokens[n]], n, tables[0], 0)]).clone()[0] for n in last]
    draft = Span(tokens[-8:], plan.context - 8, tables[0], 0)
    others = [Span(tokens[-8:-4], plan.context - 8, table, 0) for table in tables[1:8]]
    changed = 0
    for spans, at in (([draft], 0), ([draft, *others], 0), ([*others, draft], 4 * len(others))):
        together = runner.run(spans).clone()[at : at + 8]
        changed += sum(not torch.equal(a, b) for a, b in zip(alone, together, strict=True))
    return changed


def _shown_host_work(plan: Plan, runner: GraphRunner, name: str) -> Iterator[Figure]:
    """Host time in which the device has nothing to do: a step less its time on the device."""
    spans, items = _step(plan, plan.streams, 1, {"temperature": 0.0})
    whole = _median(plan, lambda: runner.judge(runner.run(spans), items))

    def launched() -> None:
        for _ in range(4):
            runner.run(spans)
            runner.launch(items)

    busy = _median(plan, launched) / 4
    yield Figure(
        f"{name}, {plan.streams} streams: host work that shows",
        "ms",
        1000 * (whole - busy),
        0.3,
        "at most",
    )


def _step_seconds(
    plan: Plan, runner: GraphRunner, streams: int, rows: int, **params: float
) -> float:
    spans, items = _step(plan, streams, rows, params or {"temperature": 0.0})
    return _median(plan, lambda: runner.judge(runner.run(spans), items))


def _step(
    plan: Plan, streams: int, rows: int, params: Mapping[str, float]
) -> tuple[list[Span], list[Judged]]:
    sampling = SamplingParams(**params)  # type: ignore[arg-type]
    vocab = next(iter(plan.shapes.values())).vocab
    text = [5] * plan.context
    spans = [Span([5] * rows, plan.context - 1, _table(plan, n), 0) for n in range(streams)]
    items = [Judged(Sampler(sampling, n, vocab), text, 8, [5] * (rows - 1)) for n in range(streams)]
    return spans, items


def _table(plan: Plan, stream: int) -> list[int]:
    blocks = -(-(plan.context + 64) // BLOCK)
    return list(range(stream * blocks, (stream + 1) * blocks))


def _median(plan: Plan, work: object) -> float:
    """Seconds of `work()`, to the end of it on the device."""
    assert callable(work)
    times: list[float] = []
    for _ in range(plan.repeats + 3):
        begin = time.perf_counter()
        work()
        if plan.device.type == "cuda":
            torch.cuda.synchronize(plan.device)
        times.append(time.perf_counter() - begin)
    return statistics.median(times[3:])


def _forget(plan: Plan) -> None:
    if plan.device.type == "cuda":
        torch.cuda.empty_cache()
