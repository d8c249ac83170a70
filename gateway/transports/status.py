"""How the gateway is."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from starlette.responses import Response
from starlette.routing import Route

from gateway.backends.base import HasUpstreams
from gateway.responses import json_response
from gateway.transports.requests import gateway_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp

    from gateway.telemetry.metrics import Metrics


async def health(_request: Request) -> ASGIApp:
    """The process answers; this says nothing about the model."""
    return json_response({"status": "ok"})


async def readiness(request: Request) -> ASGIApp:
    """Whether a generation could begin now."""
    gateway = gateway_of(request)
    body = {"status": gateway.status}
    if gateway.start_failure is not None:
        body["message"] = gateway.start_failure.message
    return json_response(body, 200 if gateway.ready else 503)


async def exposition(request: Request) -> ASGIApp:
    """For Prometheus."""
    known = cast("Metrics", request.app.state.metrics)
    body, content_type = known.exposition(request.headers.get("accept", ""))
    return Response(body, media_type=content_type)


async def upstreams(request: Request) -> ASGIApp:
    """How the servers are whose text is passed on."""
    backend = gateway_of(request).backend
    states = backend.upstreams() if isinstance(backend, HasUpstreams) else []
    return json_response({"upstreams": states})


def routes(*, metrics: bool) -> list[Route]:
    """`metrics`: whether they are to be had."""
    return [
        Route("/healthz", health),
        Route("/readyz", readiness),
        Route("/v1/upstreams", upstreams),
        *([Route("/metrics", exposition)] if metrics else []),
    ]
