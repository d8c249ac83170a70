"""The servers that are compared, as ASGI applications, and a program that serves one of them.

    python -m benchmarks.gateway.apps {wetink,bare,upstream} PORT

Granian imports `wetink` and `bare` from here. `upstream` is what the LiteLLM proxy asks.
"""

from __future__ import annotations

import asyncio
import sys
from functools import cache
from typing import TYPE_CHECKING

import msgspec
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute

from benchmarks.gateway.source import WORD, Source, frames, messages
from gateway.app import create_app
from gateway.config import DeliveryConfig, GatewayConfig, LimitsConfig, ServerConfig
from gateway.server import serve

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request
    from starlette.websockets import WebSocket

EVENT_STREAM = "text/event-stream"
HELD = 20_000
"""More streams than the benchmark holds."""


def config(port: int) -> GatewayConfig:
    """The gateway's own defaults, but for bounds that a benchmark of many streams must exceed."""
    return GatewayConfig(
        server=ServerConfig(port=port),
        limits=LimitsConfig(live_streams=HELD, connections=HELD, kept_streams=1),
        delivery=DeliveryConfig(heartbeat_s=600.0),
    )


def wetink() -> Starlette:
    return create_app(config(0), Source())


def bare() -> Starlette:
    """`/?kind=hold&count=N`: the frames of `hold`, or `retract`; `&turns=1`: with a turn of the
    event loop before each, as text that is not there yet has."""

    async def answer(request: Request) -> StreamingResponse:
        query = request.query_params
        prepared = _prepared(query["kind"], int(query["count"]))
        generate = _in_turns if "turns" in query else _at_once
        return StreamingResponse(generate(prepared), media_type=EVENT_STREAM)

    return Starlette(
        routes=[
            Route("/", answer),
            WebSocketRoute("/ws", _talk),
            Route("/readyz", _ready),
        ]
    )


async def _talk(websocket: WebSocket) -> None:
    """`{"kind": "hold", "count": N}` is answered with the messages of `hold`."""
    await websocket.accept()
    wanted = await websocket.receive_json()
    for message in _prepared_messages(wanted["kind"], wanted["count"]):
        await websocket.send_text(message)
    await websocket.send_text('{"type":"finish"}')
    await websocket.close()


def upstream() -> Starlette:
    """Speaks as OpenAI's chat completions do, as fast as it can."""

    async def answer(request: Request) -> StreamingResponse:
        wanted = msgspec.json.decode(await request.body())
        return StreamingResponse(_chunks(wanted["max_tokens"]), media_type=EVENT_STREAM)

    return Starlette(
        routes=[
            Route("/v1/chat/completions", answer, methods=["POST"]),
            Route("/readyz", _ready),
        ]
    )


@cache
def _prepared(kind: str, count: int) -> list[bytes]:
    return frames(count, kind)


@cache
def _prepared_messages(kind: str, count: int) -> list[str]:
    return messages(count, kind)


async def _at_once(prepared: list[bytes]) -> AsyncGenerator[bytes]:
    for frame in prepared:
        yield frame


async def _in_turns(prepared: list[bytes]) -> AsyncGenerator[bytes]:
    for frame in prepared:
        await asyncio.sleep(0)
        yield frame


async def _chunks(count: int) -> AsyncGenerator[bytes]:
    head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    # Two words in turn: LiteLLM gives a stream up that says the same a hundred times.
    pair = [
        b"data: %b\n\n"
        % msgspec.json.encode({**head, "choices": [{"index": 0, "delta": {"content": word}}]})
        for word in (WORD, " target")
    ]
    last = {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    for number in range(count):
        yield pair[number % 2]
    yield b"data: %b\n\ndata: [DONE]\n\n" % msgspec.json.encode(last)


async def _ready(_request: Request) -> Response:
    return JSONResponse({})


def main() -> None:
    kind, port = sys.argv[1], int(sys.argv[2])
    if kind == "wetink":
        # As `wetink serve` does it: its own uvicorn protocols, its own bounds.
        uvloop.run(serve(config(port), Source()))
    else:
        app = {"bare": bare, "upstream": upstream}[kind]()
        uvicorn.run(
            app,
            port=port,
            log_level="warning",
            access_log=False,
            loop="uvloop",
            ws="websockets-sansio",  # as the gateway has it
            ws_per_message_deflate=False,
        )


if __name__ == "__main__":
    main()
