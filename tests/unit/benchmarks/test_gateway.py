"""The benchmark of the gateway still runs against the gateway as it is."""

from __future__ import annotations

from benchmarks.gateway import inprocess


async def test_gateway_benchmark_measures_every_variant() -> None:
    measured = await inprocess.measure(count=40, rounds=1)
    for name in inprocess.VARIANTS:
        (per_event,) = measured[name]
        assert per_event > 0
