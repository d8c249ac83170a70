"""`/v1/streams`: start, read, look at and cancel streams over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import msgspec
from starlette.responses import Response
from starlette.routing import Route

from gateway.errors import HTTP_STATUS, RETRY_AFTER_S, BackendError, error_body
from gateway.outlet import Outlet
from gateway.snapshot import snapshot
from gateway.transports.attachment import read_cursor, read_query, wants_event_stream
from gateway.transports.sse import EventStream, WetinkFraming
from protocol.codec import decode_request

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp

    from gateway.service import Gateway
    from protocol.errors import ErrorCode, RequestError


class StreamCreated(msgspec.Struct, frozen=True, kw_only=True):
    """Body of the 201 to `POST /v1/streams`."""

    stream: str
    epoch: int
    events: str
    """Path of the event stream."""


def gateway_of(request: Request) -> Gateway:
    return cast("Gateway", request.app.state.gateway)


def json_response(
    body: object, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return Response(content, status, headers, media_type="application/json")


def error_response(code: ErrorCode, message: str, param: str | None = None) -> Response:
    status = HTTP_STATUS[code]
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status in (429, 503) else None
    return json_response(error_body(code, message, param), status, headers)


def refusal(error: RequestError | BackendError) -> Response:
    """The response to a request that cannot be served."""
    return error_response(error.code, error.message, getattr(error, "param", None))


async def start_stream(request: Request) -> ASGIApp:
    gateway = gateway_of(request)
    wanted = decode_request(await request.body())
    policy = gateway.policy(wanted.policy)
    stream = await gateway.generate(wanted)
    path = f"/v1/streams/{stream.id}"
    if not wants_event_stream(request):
        created = StreamCreated(stream=stream.id, epoch=stream.epoch, events=f"{path}/events")
        return json_response(created, 201, {"Location": path})
    outlet = Outlet(gateway.clock, request.scope)
    subscription = stream.attach(policy, outlet=outlet, unit=wanted.offsets, include=wanted.include)
    framing = WetinkFraming(gateway.config.delivery.retry_s)
    return EventStream(subscription, outlet, framing, ((b"content-location", path.encode()),))


async def read_events(request: Request) -> ASGIApp:
    gateway = gateway_of(request)
    query = read_query(request)
    cursor = read_cursor(request, query)
    policy = gateway.policy(query.policy)
    stream = gateway.streams.get(request.path_params["stream"], cursor)
    outlet = Outlet(gateway.clock, request.scope)
    subscription = stream.attach(
        policy, outlet=outlet, cursor=cursor, unit=query.offsets, include=query.include
    )
    if cursor is not None and subscription.delivered:
        subscription.leave()
        return Response(status_code=204, headers={"Cache-Control": "no-store"})
    return EventStream(subscription, outlet, WetinkFraming(gateway.config.delivery.retry_s))


async def look_at_or_cancel(request: Request) -> ASGIApp:
    stream = gateway_of(request).streams.get(request.path_params["stream"])
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
