from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from gateway.backends.base import Finished
from gateway.backends.openai import OpenAIBackend
from gateway.backends.routes import Routes
from gateway.backends.scripted import BUILT_IN_TRACES, ScriptedBackend, load_traces
from gateway.config.upstreams import UpstreamConfig
from gateway.errors import BackendError
from protocol.errors import ErrorCode, RequestError
from tests.upstreams.fake import FakeUpstream, Fault, Kind, fake_upstream, whole_text
from tests.upstreams.reading import Reading, said

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

QUICK = {"stall_s": 0.3, "first_byte_s": 0.5, "rest_s": 60.0, "retries": 0}


@asynccontextmanager
async def routed(
    *upstreams: UpstreamConfig, own: ScriptedBackend | None = None
) -> AsyncGenerator[Routes]:
    """All of them started."""
    backends = [OpenAIBackend(config) for config in upstreams]
    for backend in backends:
        await backend.start()
    routes = Routes(backends, own, chance=random.Random(5))
    await routes.start()
    try:
        yield routes
    finally:
        await routes.stop()


def upstream(fake: FakeUpstream, **settings: object) -> UpstreamConfig:
    return UpstreamConfig(url=fake.url, **{**QUICK, **settings})  # type: ignore[arg-type]


async def test_highest_priority_is_asked_and_the_next_where_it_fails() -> None:
    faults: deque[Fault | None] = deque([Fault(Kind.BUSY, 0), None])
    async with (
        fake_upstream(faults) as best,
        fake_upstream() as spare,
        routed(upstream(best, priority=1), upstream(spare)) as routes,
    ):
        best.retry_after = "0"
        assert (await said(routes, 1)).text == whole_text(1)
        assert (len(best.bodies), len(spare.bodies)) == (1, 1)
        await said(routes, 2)
        assert (len(best.bodies), len(spare.bodies)) == (2, 1)


async def test_upstream_that_is_down_is_left_alone() -> None:
    async with (
        fake_upstream(deque([Fault(Kind.RESET, 0)] * 9)) as best,
        fake_upstream() as spare,
        routed(upstream(best, priority=1, failures_until_down=2), upstream(spare)) as routes,
    ):
        for seed in range(6):
            assert (await said(routes, seed)).text == whole_text(seed) or seed < 2
        assert len(best.bodies) == 2
        assert routes.ready
        assert [each.servers[0].condition for each in routes.upstreams()] == ["down", "up"]


async def test_requests_are_shared_by_weight() -> None:
    async with (
        fake_upstream() as one,
        fake_upstream() as two,
        routed(upstream(one, weight=3.0), upstream(two)) as routes,
    ):
        for seed in range(80):
            await said(routes, seed)
        shares = Counter({"one": len(one.bodies), "two": len(two.bodies)})
        assert shares.total() == 80
        assert 50 <= shares["one"] <= 70


async def test_models_come_from_all_and_are_served_by_those_that_have_them() -> None:
    own = ScriptedBackend(load_traces(BUILT_IN_TRACES), speed=1000.0)
    async with fake_upstream() as fake, routed(upstream(fake), own=own) as routes:
        assert {model.id for model in routes.models()} == {"m", "lighthouse", "talk"}
        assert (await said(routes, 1)).text == whole_text(1)
        reading = Reading()
        await said(routes, 1, model="talk", reading=reading)
        assert isinstance(reading.end, Finished)
        assert len(fake.bodies) == 1


async def test_refusal_of_the_request_is_not_taken_elsewhere() -> None:
    async with (
        fake_upstream(owner="openai") as one,
        fake_upstream() as two,
        routed(upstream(one, priority=1), upstream(two)) as routes,
    ):
        refused = (await said(routes, 1, top_k=4)).refused
        assert isinstance(refused, RequestError)
        assert (refused.code, refused.param) == (ErrorCode.INVALID_VALUE, "top_k")
        assert not two.bodies


async def test_cancel_reaches_whoever_serves_the_stream() -> None:
    async with (
        fake_upstream(deque([Fault(Kind.STALL, 5)])) as fake,
        routed(upstream(fake, stall_s=60.0)) as routes,
    ):
        reading = Reading()
        stream = asyncio.create_task(said(routes, 1, reading=reading))
        await reading.begun.wait()
        routes.cancel("s")
        ended = (await stream).end
        assert isinstance(ended, Finished) and ended.reason == "cancelled"
        routes.cancel("s")  # it is over


async def test_gateway_starts_with_the_upstreams_there_are() -> None:
    async with AsyncExitStack() as stack:
        there = await stack.enter_async_context(fake_upstream())
        async with fake_upstream() as gone:
            pass
        routes = Routes([OpenAIBackend(upstream(gone)), OpenAIBackend(upstream(there))])
        stack.push_async_callback(routes.stop)
        await routes.start()
        assert [model.id for model in routes.models()] == ["m"]
        assert (await said(routes, 1)).text == whole_text(1)


async def test_gateway_does_not_start_where_no_upstream_ever_will() -> None:
    async with fake_upstream() as fake:
        fake.models_status = 401
        routes = Routes([OpenAIBackend(upstream(fake))])
        with pytest.raises(BackendError, match="does not let this gateway in"):
            await routes.start()
        await routes.stop()
