"""`/v1/models`: OpenAI's list, with what a drafting client wants to know besides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.responses import json_response
from gateway.transports.requests import gateway_of, principal_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp

    from gateway.backends.base import ModelInfo


async def list_models(request: Request) -> ASGIApp:
    """Those that the key may use; empty while no generation could begin."""
    gateway = gateway_of(request)
    known = gateway.models(principal_of(request))
    shapes = [_shape(model, gateway.started_at) for model in known]
    return json_response({"object": "list", "data": shapes})


async def retrieve_model(request: Request) -> ASGIApp:
    gateway = gateway_of(request)
    model = gateway.model(request.path_params["model"], principal_of(request))
    return json_response(_shape(model, gateway.started_at))


def _shape(model: ModelInfo, created: int) -> dict[str, Any]:
    return {
        "id": model.id,
        "object": "model",
        "created": created,
        "owned_by": "wetink",
        "context_length": model.context_length,
        "drafters": model.drafters,
    }
