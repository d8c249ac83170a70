"""What `/metrics` tells of upstreams."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client.core import Metric

    from gateway.backends.base import UpstreamState


def upstream_metrics(upstreams: Iterable[UpstreamState]) -> Iterator[Metric]:
    """By upstream and server; how streams were continued by upstream."""
    labels = ["upstream", "server"]
    up = GaugeMetricFamily(
        "wetink_upstream_up", "1 while the server is asked, 0 while it is left alone", labels=labels
    )
    outstanding = GaugeMetricFamily(
        "wetink_upstream_outstanding", "Requests under way at the server", labels=labels
    )
    requests = CounterMetricFamily(
        "wetink_upstream_requests", "Requests that the server was sent", labels=labels
    )
    failures = CounterMetricFamily(
        "wetink_upstream_failures",
        "Of these, what failed or broke off, by code",
        labels=[*labels, "code"],
    )
    continued = CounterMetricFamily(
        "wetink_upstream_continued",
        "Streams whose server was lost in the middle, by how they went on",
        labels=["upstream", "how"],
    )
    for upstream in upstreams:
        for server in upstream.servers:
            here = [upstream.name, server.url]
            up.add_metric(here, server.condition == "up")
            outstanding.add_metric(here, server.outstanding)
            requests.add_metric(here, server.requests)
            for code, count in server.failures.items():
                failures.add_metric([*here, code], count)
        for how, count in upstream.continued.items():
            continued.add_metric([upstream.name, how], count)
    yield from (up, outstanding, requests, failures, continued)
