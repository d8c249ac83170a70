"""`/v1/streams`: start, read, look at and cancel streams over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from starlette.responses import Response
from starlette.routing import Route

from gateway.responses import json_response
from gateway.streams import snapshot
from gateway.transports.requests import (
    gateway_of,
    principal_of,
    read_cursor,
    read_query,
    wants_event_stream,
    while_connected,
)
from gateway.transports.sse import EventStream, WetinkFraming
from protocol.codec import decode_request
from protocol.errors import RequestError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp


class StreamCreated(msgspec.Struct, frozen=True, kw_only=True):
    """Body of the 201 to `POST /v1/streams`."""

    stream: str
    epoch: int
    events: str
    """Path of the event stream."""


async def start_stream(request: Request) -> ASGIApp:
    gateway = gateway_of(request)
    wanted = decode_request(await request.body())
    connection = gateway.connection(request.scope)
    policy = gateway.policy(wanted.policy, connection.principal)
    stream = await while_connected(request, gateway.generate(wanted, policy, connection.principal))
    path = f"/v1/streams/{stream.id}"
    if not wants_event_stream(request):
        created = StreamCreated(stream=stream.id, epoch=stream.epoch, events=f"{path}/events")
        return json_response(created, 201, {"Location": path})
    try:
        attachment = stream.attach(
            policy, connection=connection, unit=wanted.offsets, include=wanted.include
        )
    except RequestError:
        gateway.streams.discard(stream)  # its author will not learn its id
        raise
    framing = WetinkFraming(gateway.config.delivery.retry_s)
    return EventStream(attachment, connection, framing, ((b"content-location", path.encode()),))


async def read_events(request: Request) -> ASGIApp:
    gateway = gateway_of(request)
    query = read_query(request)
    cursor = read_cursor(request, query)
    connection = gateway.connection(request.scope)
    principal = connection.principal
    principal.require_offsets(query.offsets)
    policy = gateway.policy(query.policy, principal)
    stream = gateway.streams.get(request.path_params["stream"], principal, cursor)
    attachment = stream.attach(
        policy, connection=connection, cursor=cursor, unit=query.offsets, include=query.include
    )
    if attachment.finish_was_told:
        attachment.leave()
        return Response(status_code=204, headers={"Cache-Control": "no-store"})
    return EventStream(attachment, connection, WetinkFraming(gateway.config.delivery.retry_s))


async def look_at_or_cancel(request: Request) -> ASGIApp:
    stream = gateway_of(request).streams.get(request.path_params["stream"], principal_of(request))
    if request.method == "DELETE":
        stream.cancel()
        return Response(status_code=204)
    return json_response(snapshot(stream), headers={"Cache-Control": "no-store"})


def routes() -> list[Route]:
    return [
        Route("/v1/streams", start_stream, methods=["POST"]),
        Route("/v1/streams/{stream}/events", read_events, methods=["GET"]),
        Route("/v1/streams/{stream}", look_at_or_cancel, methods=["GET", "DELETE"]),
    ]
