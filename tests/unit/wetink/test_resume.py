"""Whatever connections do, a stream ends with the same committed text."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import wetink
from gateway.backends.base import Verified
from gateway.backends.scripted import BUILT_IN_TRACES, ScriptedBackend, load_traces
from gateway.config import GatewayConfig
from gateway.server import running_server
from protocol.events import Commit
from tests.unit.wetink.servers import cutting

TEXT = "".join(
    step.event.text
    for step in load_traces(BUILT_IN_TRACES)["lighthouse"]
    if isinstance(step.event, Verified)
)
AT_ONCE = wetink.Retry(attempts=8, first_s=0.0)
OPENED = 900
"""Bytes after which the head and `open` of a first answer have surely come."""
SPEED = 200.0

cuts = st.lists(st.integers(min_value=1, max_value=6000), max_size=5)
policies = st.sampled_from(["hold", "retract", "retract:3", "chunk:word", "chunk:sentence"])
units = st.sampled_from(list(wetink.OffsetUnit))


@pytest.mark.parametrize("transport", ["sse", "ws"])
@settings(max_examples=15, deadline=None)
@given(first=st.integers(OPENED, 8000), more=cuts, policy=policies, unit=units)
async def test_stream_ends_with_the_same_text_wherever_connections_are_cut(
    transport: Literal["sse", "ws"],
    first: int,
    more: list[int],
    policy: str,
    unit: wetink.OffsetUnit,
) -> None:
    config = GatewayConfig.load(overrides={"server.port": 0}, env={})
    backend = ScriptedBackend(load_traces(BUILT_IN_TRACES), speed=SPEED)
    async with (
        running_server(config, backend) as url,
        cutting(url, [first, *more]) as cut_url,
        wetink.stream(
            cut_url, prompt="hi", policy=policy, offsets=unit, transport=transport, retry=AT_ONCE
        ) as s,
    ):
        committed = "".join([event.text async for event in s if isinstance(event, Commit)])
    assert committed == TEXT
    assert s.view.committed == TEXT
    assert s.complete
