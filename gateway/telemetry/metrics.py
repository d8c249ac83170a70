"""The gateway in numbers, as Prometheus reads them from `/metrics`.

Nearly all of it is read when it is asked for, from what streams, attachments and the backend count
anyway; only requests are counted here. Labels take few values: kinds of policies, causes, codes,
reasons, routes. What each metric tells and what to do about it: docs/OPERATING.md.
"""

from __future__ import annotations

import importlib.metadata
from itertools import product
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    ProcessCollector,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from gateway.backends.base import HasUpstreams
from gateway.streams.totals import OTHER, REASONS
from gateway.telemetry.queue import QueueWatch
from gateway.telemetry.upstreams import upstream_metrics
from protocol.durations import BOUNDS_S
from protocol.errors import ErrorCode
from protocol.events import Cause, Degradation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client.core import Metric

    from gateway.backends.base import Load
    from gateway.service import Gateway
    from gateway.streams.totals import Totals
    from protocol.durations import Durations
    from protocol.stats import Tally

KNOWN_CAUSES = frozenset(str(cause) for cause in Cause)
NEVER = dict.fromkeys((*sorted(REASONS), ErrorCode.ENGINE_FAILED.value), 0)
"""Outcomes that are reported before they happen: an alert sees only what grows, not what appears.
"""


class HttpMetrics:
    """Requests, counted when they are over."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "wetink_http_requests",
            "Requests that are over, by method, route and status (101: a WebSocket)",
            ["method", "route", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "wetink_http_request_duration_seconds",
            "How long requests took, event streams and WebSockets to their end",
            ["route"],
            buckets=BOUNDS_S,
            registry=registry,
        )

    def note(self, method: str, route: str, status: int, seconds: float) -> None:
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)


class GatewayCollector(Collector):
    """Reads a gateway whenever it is asked. For its event loop's thread."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._queue = QueueWatch(gateway.clock.now())

    def describe(self) -> list[Metric]:
        """Nothing: asked at registration, before there is anything to see."""
        return []

    def collect(self) -> Iterator[Metric]:
        gateway = self._gateway
        totals, load = gateway.streams.totals, gateway.backend.load()
        version = importlib.metadata.version("wetink-gateway")
        yield _gauge("wetink_build_info", "1, with the version", [({"version": version}, 1)])
        yield _gauge(
            "wetink_ready", "1 while a generation could begin (as /readyz)", int(gateway.ready)
        )
        yield from _streams(gateway)
        yield from _tokens(totals)
        yield from self._waiting(load, totals)
        yield from _engine(load)
        if isinstance(gateway.backend, HasUpstreams):
            yield from upstream_metrics(gateway.backend.upstreams())
        yield from _attachments(totals.tallies)

    def _waiting(self, load: Load, totals: Totals) -> Iterator[Metric]:
        queue, turns = self._queue, self._gateway.streams.turns
        waiting = turns.waiting + load.waiting
        queue.look(self._gateway.clock.now(), waiting, totals.ended.total())
        yield _gauge(
            "wetink_queue_streams", "Streams that wait, for their turn or in the engine", waiting
        )
        yield _gauge("wetink_turns_waiting", "Of these, for their turn", turns.waiting)
        yield _gauge("wetink_turns_taken", "Streams whose turn it is", turns.generating)
        yield _gauge(
            "wetink_turns_expected_wait_seconds",
            "What a newcomer has to expect; decides who gets less, and who is refused",
            turns.expected_s(),
        )
        yield _counter(
            "wetink_streams_degraded",
            "Streams that were given less in an overload, by what of",
            [({"step": step}, totals.degraded[step]) for step in Degradation],
        )
        yield _gauge(
            "wetink_queue_growth_streams_per_second",
            "By how much the queue has been growing over the last two minutes; below 0: shrinking",
            queue.growth,
        )
        if queue.wait_s is not None:
            yield _gauge(
                "wetink_estimated_wait_seconds",
                "How long a stream that came now would wait; absent until a stream has ended",
                queue.wait_s,
            )


def _streams(gateway: Gateway) -> Iterator[Metric]:
    streams, totals = gateway.streams, gateway.streams.totals
    yield _gauge("wetink_streams_live", "Streams that generate or wait to", streams.live)
    yield _gauge("wetink_streams_kept", "Finished streams that can be read", streams.kept)
    yield _gauge("wetink_kept_bytes", "Memory of finished streams", streams.kept_bytes)
    yield _counter("wetink_streams_started", "Streams that were admitted", totals.started)
    yield _counter(
        "wetink_streams_ended",
        "Streams that are over, by reason, or by the code they failed with",
        [({"outcome": outcome}, count) for outcome, count in {**NEVER, **totals.ended}.items()],
    )
    yield _counter(
        "wetink_streams_refused",
        "Generations that did not begin, by code",
        [({"code": code}, count) for code, count in totals.refused.items()],
    )
    attachments = streams.attachments()
    yield _gauge("wetink_attachments", "Readings of streams that are going on", len(attachments))
    yield _gauge(
        "wetink_buffered_bytes",
        "Committed text that waits for readers to take what came before",
        sum(each.waiting_bytes for each in attachments),
    )


def _tokens(totals: Totals) -> Iterator[Metric]:
    """Of streams that have been completed."""
    for name, value, text in (
        ("prompt", totals.prompt_tokens, "Tokens of prompts"),
        ("cached_prompt", totals.cached_prompt_tokens, "Of these, found in the prefix cache"),
        ("completion", totals.completion_tokens, "Tokens committed"),
        ("drafted", totals.drafted_tokens, "Tokens drafted"),
        ("accepted", totals.accepted_tokens, "Of these, accepted by the target model"),
    ):
        yield _counter(f"wetink_{name}_tokens", f"{text}, counted when a stream ends", value)
    yield _counter(
        "wetink_verification_steps",
        "Steps in which a stream was verified, counted when it ends",
        totals.steps,
    )


def _engine(load: Load) -> Iterator[Metric]:
    yield _gauge("wetink_engine_streams", "Streams that the backend works on", load.running)
    yield _counter("wetink_engine_restarts", "Engines that died or hung", load.engine_restarts)
    if (ahead := load.ahead) is not None:
        model = {"model": ahead.model}
        yield _gauge(
            "wetink_ahead_drafting", "Streams being drafted ahead of", [(model, ahead.under_way)]
        )
        yield _counter(
            "wetink_ahead_runs", "Drafts begun ahead of upstreams", [(model, ahead.begun)]
        )
    engine = load.engine
    yield _gauge("wetink_engine_up", "1 while an engine takes requests", int(engine is not None))
    if engine is None:
        return
    yield _gauge("wetink_kv_blocks", "Blocks of the KV cache", engine.kv_blocks)
    yield _gauge("wetink_kv_blocks_used", "Of these, held by streams", engine.kv_blocks_used)
    yield _counter("wetink_engine_steps", "Steps of the present engine", engine.steps)
    yield _counter(
        "wetink_preemptions",
        "Streams that had to give their KV blocks back and wait, in the present engine",
        engine.preemptions,
    )
    yield _counter(
        "wetink_sentinel_checks",
        "Steps that the present engine computed again to compare bits",
        engine.sentinel_checks,
    )
    yield _counter(
        "wetink_sentinel_mismatches",
        "Of these, steps with other bits: exactness does not hold on this machine",
        engine.sentinel_mismatches,
    )


def _attachments(tallies: Mapping[str, Tally]) -> Iterator[Metric]:
    """By the kind of policy that they read with."""
    for name, text in (
        ("time_to_first_visible", "From the request to the first text of its first reader"),
        ("time_to_first_committed", "From the request to the first committed text, likewise"),
        ("commit_gap", "From one commit to the next, at one reader"),
        ("commit_lag", "From the verification of text to the commit that tells of it"),
    ):
        yield _histogram(
            f"wetink_{name}_seconds",
            text,
            {kind: _durations(tally, name) for kind, tally in tallies.items()},
        )
    for name, text in (
        ("committed_units", "Length of committed text told to readers"),
        ("erased_units", "Length of text taken back; ÷ committed: normalized erasure"),
        ("changes", "Changes of streams' text that readers were to be told of"),
        ("deliveries", "Times they were told; fewer than changes: merged for slow readers"),
    ):
        values = [({"policy": kind}, getattr(tally, name)) for kind, tally in tallies.items()]
        yield _counter(f"wetink_{name}", text, values)
    causes = dict.fromkeys(product(tallies, sorted(KNOWN_CAUSES)), 0)
    for kind, tally in tallies.items():
        for cause, count in tally.retractions.items():
            key = kind, cause if cause in KNOWN_CAUSES else OTHER
            causes[key] = causes.get(key, 0) + count
    yield _counter(
        "wetink_retractions",
        "Times text was taken back, by cause",
        [({"policy": kind, "cause": cause}, count) for (kind, cause), count in causes.items()],
    )
    yield _counter(
        "wetink_attachment_failures",
        "Readings that ended before their stream, by code",
        [
            ({"policy": kind, "code": code}, count)
            for kind, tally in tallies.items()
            for code, count in tally.failures.items()
        ],
    )


def _durations(tally: Tally, name: str) -> Durations:
    return {
        "time_to_first_visible": tally.first_visible,
        "time_to_first_committed": tally.first_committed,
        "commit_gap": tally.gaps,
        "commit_lag": tally.lags,
    }[name]


class Metrics:
    """The registry of one gateway, and what is sent of it."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self.http = HttpMetrics(self._registry)

    def watch(self, gateway: Gateway) -> None:
        """From now on `gateway` is read as well."""
        self._registry.register(GatewayCollector(gateway))

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Body and content type in the format that `Accept` names."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


Samples = list[tuple[dict[str, str], float]]


def _gauge(name: str, text: str, value: float | Samples) -> Metric:
    return _filled(GaugeMetricFamily(name, text, labels=_labels(value)), value)


def _counter(name: str, text: str, value: float | Samples) -> Metric:
    return _filled(CounterMetricFamily(name, text, labels=_labels(value)), value)


def _labels(value: float | Samples) -> list[str]:
    return list(value[0][0]) if isinstance(value, list) and value else []


def _filled(family: GaugeMetricFamily | CounterMetricFamily, value: float | Samples) -> Metric:
    samples: Samples = value if isinstance(value, list) else [({}, value)]
    for labels, number in samples:
        family.add_metric(list(labels.values()), number)
    return family


def _histogram(name: str, text: str, by_policy: Mapping[str, Durations]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=["policy"])
    for kind, durations in by_policy.items():
        buckets: list[tuple[str, float]] = []
        total = 0
        bounds = [*map(str, BOUNDS_S), "+Inf"]
        for bound, count in zip(bounds, durations.counts, strict=True):
            total += count
            buckets.append((bound, total))
        family.add_metric([kind], buckets, durations.total_s)
    return family
