"""The documents that describe the gateway's interfaces to programs."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING

import msgspec
from starlette.routing import Route

from gateway.responses import json_response
from gateway.transports.openapi import openapi_document
from gateway.transports.requests import gateway_of
from protocol import schema

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp


async def asyncapi(request: Request) -> ASGIApp:
    return json_response(_asyncapi(str(request.base_url)))


async def json_schema(_request: Request) -> ASGIApp:
    return json_response(_json_schema())


@lru_cache(maxsize=1)
def _openapi(profiles: tuple[str, ...], demonstrated: bool) -> bytes:
    return msgspec.json.encode(openapi_document(profiles, demonstrated=demonstrated))


@lru_cache(maxsize=8)  # a gateway answers under few names
def _asyncapi(server_url: str) -> bytes:
    return msgspec.json.encode(schema.asyncapi(server_url))


@cache
def _json_schema() -> bytes:
    return msgspec.json.encode(schema.json_schema())


def routes(*, demonstrated: bool) -> list[Route]:
    """`demonstrated`: whether the engine may be slowed down and killed."""

    async def openapi(request: Request) -> ASGIApp:
        profiles = tuple(sorted(gateway_of(request).profiles))
        return json_response(_openapi(profiles, demonstrated))

    return [
        Route("/openapi.json", openapi),
        Route("/asyncapi.json", asyncapi),
        Route("/schema.json", json_schema),
    ]
