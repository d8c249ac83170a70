"""What the gateway says of itself: health, models, and the documents that describe it."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING

import msgspec
from starlette.routing import Route

from gateway.transports.http import gateway_of, json_response
from gateway.transports.openapi import openapi_document
from protocol import schema

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp


async def health(_request: Request) -> ASGIApp:
    """The process answers; nothing is said about the model."""
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
    known = gateway.backend.models() if gateway.ready else []
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
                for model in known
            ],
        }
    )


async def openapi(_request: Request) -> ASGIApp:
    return json_response(_openapi())


async def asyncapi(request: Request) -> ASGIApp:
    return json_response(_asyncapi(str(request.base_url)))


async def json_schema(_request: Request) -> ASGIApp:
    return json_response(_json_schema())


@cache
def _openapi() -> bytes:
    return msgspec.json.encode(openapi_document())


@lru_cache(maxsize=8)  # a gateway answers under few names
def _asyncapi(server_url: str) -> bytes:
    return msgspec.json.encode(schema.asyncapi(server_url))


@cache
def _json_schema() -> bytes:
    return msgspec.json.encode(schema.json_schema())


def routes() -> list[Route]:
    return [
        Route("/healthz", health),
        Route("/readyz", readiness),
        Route("/v1/models", models),
        Route("/openapi.json", openapi),
        Route("/asyncapi.json", asyncapi),
        Route("/schema.json", json_schema),
    ]
