"""The servers that are compared: an upstream, a bare pass-through, and the gateway in front of one.

python -m benchmarks.passing.apps {upstream,bare,wetink} PORT [UPSTREAM_PORT]
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import msgspec
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from benchmarks.gateway.apps import EVENT_STREAM, config
from benchmarks.gateway.source import CLOCK_DIGITS, WORD
from gateway.backends.openai import OpenAIBackend
from gateway.backends.routes import Routes
from gateway.config.upstreams import UpstreamConfig
from gateway.server import serve

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request

RATE = 50
"""Events per second and stream of the paced model."""
GOLDEN = 0.618034
_places = itertools.count()
HEAD = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}


def upstream() -> Starlette:
    """Chats as fast as they can be; raw completions at `RATE`, whose texts are clock readings."""

    async def chat(request: Request) -> StreamingResponse:
        wanted = msgspec.json.decode(await request.body())
        return StreamingResponse(_fast(wanted["max_tokens"]), media_type=EVENT_STREAM)

    async def completion(request: Request) -> StreamingResponse:
        wanted = msgspec.json.decode(await request.body())
        return StreamingResponse(_paced(wanted["max_tokens"]), media_type=EVENT_STREAM)

    async def models(_request: Request) -> Response:
        return JSONResponse({"data": [{"id": "m", "max_model_len": 1_000_000}]})

    return Starlette(
        routes=[
            Route("/v1/chat/completions", chat, methods=["POST"]),
            Route("/v1/completions", completion, methods=["POST"]),
            Route("/v1/models", models),
            Route("/readyz", _ready),
        ]
    )


def _event(**choice: object) -> bytes:
    return b"data: %b\n\n" % msgspec.json.encode({**HEAD, "choices": [{"index": 0, **choice}]})


async def _fast(count: int) -> AsyncGenerator[bytes]:
    # Two words in turn: LiteLLM gives a stream up that says the same a hundred times.
    pair = [_event(delta={"content": word}) for word in (WORD, " target")]
    for number in range(count):
        yield pair[number % 2]
    yield _event(delta={}, finish_reason="stop") + b"data: [DONE]\n\n"


async def _paced(count: int) -> AsyncGenerator[bytes]:
    # Streams that begin together do not go on in step: each has a place of its own in the beat.
    begin = time.monotonic() + next(_places) * GOLDEN % 1 / RATE
    for number in range(count):
        await asyncio.sleep(max(0.0, begin + number / RATE - time.monotonic()))
        yield _event(text=f"{time.monotonic_ns():0{CLOCK_DIGITS}}")
    yield _event(text="", finish_reason="stop") + b"data: [DONE]\n\n"


def bare(upstream_port: int) -> Starlette:
    """Hands on the bytes it reads and looks at none of them."""
    sessions: list[aiohttp.ClientSession] = []

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            sessions.append(session)
            yield

    async def passed(request: Request) -> StreamingResponse:
        url = f"http://127.0.0.1:{upstream_port}{request.url.path}"
        answer = await sessions[0].post(url, data=await request.body())
        return StreamingResponse(answer.content.iter_any(), media_type=EVENT_STREAM)

    return Starlette(
        routes=[
            Route("/v1/chat/completions", passed, methods=["POST"]),
            Route("/v1/completions", passed, methods=["POST"]),
            Route("/readyz", _ready),
        ],
        lifespan=lifespan,
    )


async def _ready(_request: Request) -> Response:
    return JSONResponse({})


def main() -> None:
    kind, port = sys.argv[1], int(sys.argv[2])
    if kind == "wetink":
        url = f"http://127.0.0.1:{sys.argv[3]}/v1"
        # As `wetink serve --upstream` does it.
        backend = Routes([OpenAIBackend(UpstreamConfig(url=url))])
        uvloop.run(serve(config(port), backend))
        return
    app = upstream() if kind == "upstream" else bare(int(sys.argv[3]))
    uvicorn.run(app, port=port, log_level="warning", access_log=False, loop="uvloop")


if __name__ == "__main__":
    main()
