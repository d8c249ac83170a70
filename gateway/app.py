"""The ASGI application: routes, refusals, and a backend that starts while the gateway answers."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from gateway import request_ids
from gateway.access import read_keys
from gateway.access.access import are_keys_needed
from gateway.access.hosts import Hosts
from gateway.delivery.connection import DIRECT_SEND
from gateway.errors import BackendError
from gateway.middleware import BodyLimit, Doorkeeper, Gate
from gateway.responses import error_response, refusal_response
from gateway.service import Gateway
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.texts import TextLog
from gateway.transports import demonstration, documents, pages, status, streams, tickets, ws
from gateway.transports.openai import routes as openai
from gateway.transports.openai.errors import refused as openai_refused
from gateway.transports.requests import LAST_EVENT_ID
from protocol.errors import ErrorCode, RequestError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from starlette.requests import Request
    from starlette.routing import BaseRoute
    from starlette.types import Receive, Scope, Send

    from gateway.backends.base import Backend
    from gateway.clock import Clock
    from gateway.config import GatewayConfig
    from gateway.telemetry.traces import Traces


class Application(Starlette):
    """Keeps the server's own `send` for event streams. What middleware does to an answer it does to
    its head; to pass every event through all of it costs more than to make the event.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[DIRECT_SEND] = send
        await super().__call__(scope, receive, send)


def create_app(
    config: GatewayConfig, backend: Backend, make_clock: Callable[[], Clock] | None = None
) -> Starlette:
    """`backend` is started when the application is, and stopped with it.

    `make_clock` is called on the event loop; None: the loop's own clock. The `Gateway` is
    `app.state.gateway` once the application has started; `app.state.metrics` what `/metrics` tells.
    Raises ConfigError where the keys cannot be read.
    """

    app = Application(
        routes=_routes(config, backend),
        lifespan=partial(_lifespan, config, backend, make_clock),
        middleware=_middleware(config),
        exception_handlers={
            RequestError: _refused,
            BackendError: _refused,
            HTTPException: _not_routed,
            ClientDisconnect: _hung_up,
            Exception: _broken,
        },
    )
    app.state.metrics = Metrics()
    return app


@asynccontextmanager
async def _lifespan(
    config: GatewayConfig, backend: Backend, make_clock: Callable[[], Clock] | None, app: Starlette
) -> AsyncGenerator[None]:
    gateway = Gateway(config, backend, make_clock() if make_clock else None)
    app.state.gateway = gateway
    app.state.metrics.watch(gateway)
    if config.log.texts:
        gateway.streams.observers.append(TextLog())
    traces = _traces() if config.telemetry.traces else None
    if traces is not None:
        gateway.streams.observers.append(traces)
    gateway.start()
    try:
        yield
    finally:
        await gateway.stop()
        if traces is not None:
            await asyncio.to_thread(traces.close)


def _routes(config: GatewayConfig, backend: Backend) -> list[BaseRoute]:
    return [
        *streams.routes(),
        *ws.routes(),
        *tickets.routes(),
        *openai.routes(),
        *status.routes(metrics=config.telemetry.metrics),
        *documents.routes(demonstrated=demonstration.is_on(config.demonstration, backend)),
        *demonstration.routes(config.demonstration, backend),
        *pages.routes(),
    ]


def _middleware(config: GatewayConfig) -> list[Middleware]:
    """From the outside in. Raises ConfigError where the keys cannot be read."""
    server = config.server
    keys_needed = are_keys_needed(config, read_keys(config.access))
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=server.allowed_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=[
                "Content-Type",
                LAST_EVENT_ID,
                "Authorization",
                request_ids.HEADER,
                *openai.REQUEST_HEADERS,
            ],
            expose_headers=[
                "Location",
                "Content-Location",
                "Retry-After",
                "WWW-Authenticate",
                request_ids.HEADER,
            ],
        ),
        Middleware(
            Doorkeeper,
            hosts=Hosts(server.host, server.allowed_hosts, keys_needed=keys_needed),
            allowed_origins=server.allowed_origins,
        ),
        Middleware(Gate, refusal=_not_let_in),
        Middleware(BodyLimit),
    ]


def _traces() -> Traces:
    """Loaded only where it is wanted: the extra `otel` may not be there."""
    from gateway.telemetry import traces

    return traces.to_collector()


async def _refused(_request: Request, error: Exception) -> Response:
    return refusal_response(cast("RequestError | BackendError", error))


def _not_let_in(scope: Scope, error: RequestError) -> Response:
    """The gate's answer, in the shape of the interface that was asked."""
    return (openai_refused if openai.owns(scope["path"]) else refusal_response)(error)


async def _not_routed(request: Request, error: Exception) -> Response:
    """404 and 405 of the router."""
    not_routed = cast("HTTPException", error)
    path = request.url.path
    if not_routed.status_code == 405:
        allowed = (not_routed.headers or {}).get("Allow", "")
        response = error_response(ErrorCode.METHOD_NOT_ALLOWED, f"allowed methods here: {allowed}")
        response.headers["Allow"] = allowed
        return response
    missing = RequestError(ErrorCode.NOT_FOUND, f"there is nothing at {path[:200]}")
    return _not_let_in(request.scope, missing)


async def _hung_up(_request: Request, _error: Exception) -> Response:
    """The client went away in the middle of its body: nobody is left to answer, nothing failed."""
    return Response(status_code=400)


async def _broken(_request: Request, _error: Exception) -> Response:
    """Our own bug; the server logs the traceback, the user learns nothing of it."""
    return error_response(ErrorCode.INTERNAL, "the gateway failed; the request is not to blame")
