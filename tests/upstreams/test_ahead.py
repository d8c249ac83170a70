"""The local engine drafts ahead of llama.cpp's own server: `make test-upstreams`."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from gateway.backends.ahead import AheadBackend
from gateway.backends.local import LocalBackend
from gateway.backends.openai import OpenAIBackend
from gateway.config import EngineConfig
from gateway.config.upstreams import UpstreamConfig
from protocol.events import Commit, Finish, Open, Tentative
from tests.server.gateways import Reader, serving
from tests.upstreams.llamacpp import llama_server
from tests.upstreams.slowed import slowed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from gateway.backends.base import Backend
    from protocol.events import ServerEvent

pytestmark = pytest.mark.upstreams

STORY = "Once upon a time there was a lighthouse"


@asynccontextmanager
async def drafter() -> AsyncGenerator[LocalBackend]:
    """The embedded model."""
    local = LocalBackend(EngineConfig())
    await local.start()
    try:
        yield local
    finally:
        await local.stop()


async def read(backend: Backend, **request: object) -> list[ServerEvent]:
    """One stream through a gateway to its end."""
    async with serving(backend) as (_, http):
        while (await http.get("/readyz")).status_code != 200:
            pass
        model = (await http.get("/v1/models")).json()["data"][0]["id"]
        body = {"model": model, "temperature": 0.0, "max_tokens": 60, **request}
        headers = {"Accept": "text/event-stream"}
        async with http.stream("POST", "/v1/streams", json=body, headers=headers) as response:
            assert response.status_code == 200, await response.aread()
            return [framed.event for framed in await Reader(response).to_end()]


def committed(events: list[ServerEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, Commit))


@pytest.mark.parametrize(
    "request_",
    [{"prompt": STORY}, {"messages": [{"role": "user", "content": STORY}]}],
    ids=["prompt", "chat"],
)
async def test_drafts_are_seen_ahead_of_a_slow_llama_cpp_and_its_text_stays_its_own(
    request_: dict[str, object],
) -> None:
    async with (
        llama_server("one") as (url, _),
        slowed(url, first_s=1.0, piece_s=0.07) as slow,
        drafter() as local,
    ):
        alone = await read(OpenAIBackend(UpstreamConfig(url=url)), policy="hold", **request_)
        upstream = OpenAIBackend(UpstreamConfig(url=slow))
        drafted = await read(AheadBackend(upstream, local), policy="retract", **request_)
        opened, finish = drafted[0], drafted[-1]
    assert isinstance(alone[-1], Finish) and isinstance(finish, Finish)
    assert finish.digest == alone[-1].digest
    assert committed(drafted) == committed(alone) != ""
    assert isinstance(opened, Open) and opened.draft_model == local.models()[0].id != opened.model
    assert any(isinstance(event, Tentative) for event in drafted)
    # The same model, rounded in another way: most of its drafts are what llama.cpp says.
    assert finish.usage.accepted_tokens > finish.usage.completion_tokens / 2
