"""One request to OpenAI's interface, answered by hand."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from tests.server.gateways import PATIENCE_S

if TYPE_CHECKING:
    import httpx

    from gateway.backends.base import BackendEvent
    from tests.server.gateways import Served

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
COMPLETION: dict[str, Any] = {"prompt": "once"}


async def answer_to(
    served: Served, path: str, body: dict[str, Any], *events: BackendEvent, choices: int = 1
) -> httpx.Response:
    """The whole answer of a request whose choices all say `events`, one after another."""
    asking = asyncio.create_task(served.http.post(path, json=body))
    for _ in range(choices):
        stream = await asyncio.wait_for(served.backend.admitted.get(), PATIENCE_S)
        served.backend.say(*events, stream=stream)
    return await asking


def data_lines(text: str) -> list[str]:
    return [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]


def chunks_of(text: str) -> list[dict[str, Any]]:
    """Of an answer that is complete."""
    *chunks, done = data_lines(text)
    assert done == "[DONE]"
    return [json.loads(chunk) for chunk in chunks]
