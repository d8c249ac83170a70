"""The sentinel finds a planted difference, finds none in a clean engine, and disturbs nobody."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from engine import sentinel
from engine.sentinel import IDLE_SHARE, SCRATCH_BLOCKS, SHARE, Sentinel
from tests.exactness.mixture import assert_same, drafting, mixed_requests
from tests.generation import Generation, Transcript, engine_on, generate, request

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from engine.engine import Engine
    from engine.model.batch import Span

KINDS: dict[str, dict[str, Any]] = {
    "native bfloat16": {"kernels": "native", "dtype": "bfloat16"},
    "native int4": {"kernels": "native", "dtype": "int4"},
    "torch float32": {"kernels": "torch", "dtype": "float32"},
    "torch bfloat16": {"kernels": "torch", "dtype": "bfloat16"},
}


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step is checked, whatever that costs."""
    monkeypatch.setattr(sentinel, "SHARE", float("inf"))


def watched(engine: Engine) -> Sentinel:
    found = engine._sentinel  # pyright: ignore[reportPrivateUsage]
    assert found is not None
    return found


def plant(engine: Engine, most: int) -> None:
    """Have the last row come out with another last bit when more than `most` are computed."""
    runner: Any = watched(engine)._runner  # pyright: ignore[reportPrivateUsage]
    run = runner.run

    def changed(spans: Sequence[Span]) -> Any:
        logits = run(spans)
        if sum(len(span.tokens) for span in spans) > most and len(logits):
            if not isinstance(logits, torch.Tensor):
                logits.view(np.int32)[-1, 7] ^= 1
            else:
                whole = torch.int16 if logits.element_size() == 2 else torch.int32
                logits.view(whole)[-1, 7] ^= 1
        return logits

    runner.run = changed


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("always")
def test_sentinel_finds_nothing_in_a_clean_engine_and_changes_no_text(
    tiny: Path, near: Path, kind: str
) -> None:
    """Preemption, drafts, chunks and a warm cache; every step computed twice."""
    starts = drafting(mixed_requests(), ["ngram", "model", "none"], range(9))
    settings = KINDS[kind] | {"draft_model": str(near)}
    alone: dict[str, Transcript] = {}
    plain = engine_on(tiny, **settings, mode="fast" if "native" in kind else "exact")
    for start in drafting(starts, ["none"], [0]):
        alone |= generate(plain, start)
    engine = engine_on(tiny, **settings, kv_blocks=40, max_step_tokens=60)
    arrivals = {5: starts[8:]}
    generation = Generation(engine)
    generation.start(*starts[:8])
    assert_same(generation.run(arrivals), alone)
    assert watched(engine).checks > 50
    assert engine.sentinel_mismatches == 0
    plain.close()
    engine.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("always")
def test_sentinel_finds_a_changed_bit_says_so_once_and_counts_it(
    tiny: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = engine_on(tiny, **KINDS[kind])
    plant(engine, most=6)
    start = request("s", "The ink is", temperature=0.0, max_tokens=40, ignore_eos=True)
    with caplog.at_level(logging.INFO):
        generate(engine, start)
        engine.close()
    # One row of a decoding step again among more than six is another last bit.
    assert engine.sentinel_mismatches > 20
    errors = [r.getMessage() for r in caplog.records if "gives other bits" in r.message]
    assert len(errors) == 1
    assert "Differing: rows [0], 1 of" in errors[0]
    assert "beside" in errors[0] and "tiny" in errors[0]
    assert f"{engine.sentinel_mismatches} mismatches" in caplog.records[-1].message


@pytest.mark.parametrize("kind", KINDS)
def test_idle_engine_compares_its_last_step_and_disturbs_nothing(
    tiny: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never while it serves; then again and again, and the text after that is what it was."""
    monkeypatch.setattr(sentinel, "SHARE", 0.0)
    monkeypatch.setattr(sentinel, "IDLE_SHARE", float("inf"))
    start = request("s", "The ink is", temperature=0.7, seed=3, max_tokens=40, ignore_eos=True)
    engine = engine_on(tiny, **KINDS[kind])
    engine.idle()
    first = generate(engine, start)
    assert watched(engine).checks == 0
    for _ in range(20):
        engine.idle()
    assert (watched(engine).checks, engine.sentinel_mismatches) == (20, 0)
    assert_same(generate(engine, start), first)
    plant(engine, most=6)
    for _ in range(20):
        engine.idle()
    # With up to 16 rows beside its own, a check stays within the six rarely.
    assert watched(engine).checks == 40
    assert engine.sentinel_mismatches > 5
    engine.close()


def test_sentinel_does_not_watch_where_nothing_is_promised(tiny: Path) -> None:
    engine = engine_on(tiny, mode="fast")
    generate(engine, request("s", "The ink", max_tokens=4))
    assert engine.sentinel_mismatches == 0
    engine.close()


class Recorder:
    """A runner that computes nothing, writes down what it was asked for, and takes a second."""

    def __init__(self) -> None:
        self.now = 0.0
        self.spans: list[list[Span]] = []

    def run(self, spans: list[Span]) -> np.ndarray[Any, Any]:
        self.now += 1.0
        self.spans.append(spans)
        return np.zeros((sum(len(s.tokens) - s.logits_from for s in spans), 8), np.float32)


def over(runner: Recorder, *, first_block: int) -> Sentinel:
    return Sentinel(
        runner,  # pyright: ignore[reportArgumentType]
        first_block=first_block,
        block_size=16,
        setting="",
        clock=lambda: runner.now,
    )


def _span(tokens: list[int], start: int, table: list[int], logits_from: int) -> Span:
    from engine.model.batch import Span

    return Span(tokens, start, table, logits_from)


def test_sentinel_keeps_to_its_share_of_time() -> None:
    runner = Recorder()
    one = over(runner, first_block=10)
    rows = np.zeros((1, 8), np.float32)
    for _ in range(100_000):
        runner.now += 0.03
        one.watch([_span([1], 3, [0], 0)], [[0, 0, 0, 1]], rows)
        assert one.checks <= SHARE * runner.now + 1
    assert one.checks >= SHARE * runner.now - 2
    assert one.mismatches == 0


def test_sentinel_keeps_to_its_share_of_time_while_idle() -> None:
    runner = Recorder()
    one = over(runner, first_block=10)
    one.watch([_span([1], 3, [0], 0)], [[0, 0, 0, 1]], np.zeros((1, 8), np.float32))
    for _ in range(10_000):
        runner.now += 0.5
        one.idle()
    assert 0.9 * IDLE_SHARE * runner.now <= one.checks <= IDLE_SHARE * runner.now + 1


@pytest.mark.usefixtures("always")
def test_sentinel_writes_to_no_block_but_its_own() -> None:
    """Whatever the step looked like: recomputed from the last border between blocks on."""
    for block_size in (16, 32, 64):
        for start, count, wanted in ((0, 5, 1), (70, 1, 1), (130, 17, 17), (64, 1, 1), (3, 200, 1)):
            runner = Recorder()
            one = Sentinel(
                runner,  # pyright: ignore[reportArgumentType]
                first_block=90,
                block_size=block_size,
                setting="",
                clock=lambda runner=runner: runner.now,
            )
            text = list(range(start + count))
            table = list(range(-(-len(text) // block_size)))
            runner.now = 1e9
            step = _span(text[start:], start, table, count - wanted)
            one.watch([step], [text[:start]], np.zeros((wanted, 8), np.float32))
            ((first, second),) = runner.spans
            probe, beside = (
                (first, second)
                if first.logits_from < len(first.tokens)
                else (
                    second,
                    first,
                )
            )
            assert probe.start % block_size == 0
            assert probe.tokens == text[probe.start :]
            assert probe.start + probe.logits_from == start + count - wanted
            read = probe.start // block_size
            assert probe.block_table[:read] == table[:read]
            written = [*probe.block_table[read:], *beside.block_table]
            assert len(set(written)) == len(written)
            assert set(written) <= set(range(90, 90 + SCRATCH_BLOCKS))
            assert len(probe.block_table) * block_size >= start + count
            assert beside.start == 0 and 0 < len(beside.tokens) <= block_size
            assert beside.logits_from == len(beside.tokens)


@pytest.mark.usefixtures("always")
def test_sentinel_leaves_steps_alone_that_have_nothing_to_compare() -> None:
    runner = Recorder()
    one = over(runner, first_block=9)
    runner.now = 1e9
    one.watch([_span([1, 2], 0, [0], 2)], [[1, 2, 3]], np.zeros((0, 8), np.float32))
    one.watch([_span([1], 0, [0], 0)], [[1]], np.full((1, 8), np.nan, np.float32))
    assert one.checks == 0 and not runner.spans
