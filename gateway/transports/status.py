"""How the gateway is, and which models it serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import Route

from gateway.responses import json_response
from gateway.transports.requests import gateway_of, principal_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp


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


async def models(request: Request) -> ASGIApp:
    """OpenAI's list, with what a drafting client wants to know besides."""
    gateway = gateway_of(request)
    return json_response(
        {
            "object": "list",
            "data": [
                {
                    "id": model.id,
                    "object": "model",
                    "created": gateway.started_at,
                    "owned_by": "wetink",
                    "context_length": model.context_length,
                    "drafters": model.drafters,
                }
                for model in gateway.models(principal_of(request))
            ],
        }
    )


def routes() -> list[Route]:
    return [
        Route("/healthz", health),
        Route("/readyz", readiness),
        Route("/v1/models", models),
    ]
