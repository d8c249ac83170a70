"""Tickets for pages: leave to read one stream, or to open one WebSocket, that fits into a URL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeVar
from urllib.parse import urlencode

import msgspec
from msgspec import Meta
from starlette.routing import Route

from gateway.responses import json_response
from gateway.transports.requests import gateway_of, principal_of
from protocol.codec import decode_body
from protocol.events import OffsetUnit
from protocol.requests import PolicySpec

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp

    from gateway.access.access import Issued

_Wanted = TypeVar("_Wanted", bound=msgspec.Struct)
_Lifetime = Annotated[float, Meta(gt=0.0)]


class SocketTicketRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /v1/tickets`; an empty one asks for nothing in particular."""

    ttl_s: _Lifetime | None = None
    """How long the ticket is good; None: as long as the gateway finds right."""


class StreamTicketRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /v1/streams/{id}/tickets`; an empty one asks for nothing in particular."""

    policy: PolicySpec | str | None = None
    """The only one that it lets read with; None: the default one."""
    offsets: OffsetUnit | None = None
    """The only unit that it lets count in; None: any."""
    ttl_s: _Lifetime | None = None
    """How long the ticket is good; None: as long as the gateway finds right."""


class StreamTicket(msgspec.Struct, frozen=True, kw_only=True):
    """Body of the 201 to `POST /v1/streams/{id}/tickets`."""

    ticket: str
    expires_at: int
    """Unix time in seconds."""
    events: str
    """Path of the event stream, the ticket included."""


class SocketTicket(msgspec.Struct, frozen=True, kw_only=True):
    """Body of the 201 to `POST /v1/tickets`."""

    ticket: str
    expires_at: int
    """Unix time in seconds."""
    socket: str
    """Path of the WebSocket, the ticket included."""


async def stream_ticket(request: Request) -> ASGIApp:
    wanted = await _body(request, StreamTicketRequest)
    gateway, principal = gateway_of(request), principal_of(request)
    stream = gateway.streams.get(request.path_params["stream"], principal)
    issued = gateway.access.issue(
        principal,
        stream=stream.id,
        policy=gateway.policy(wanted.policy, principal),
        offsets=wanted.offsets,
        ttl_s=wanted.ttl_s,
    )
    query = {} if wanted.offsets is None else {"offsets": wanted.offsets.value}
    return _created(
        StreamTicket(
            ticket=issued.ticket,
            expires_at=issued.expires_at,
            events=f"/v1/streams/{stream.id}/events?{_query(issued, query)}",
        )
    )


async def socket_ticket(request: Request) -> ASGIApp:
    wanted = await _body(request, SocketTicketRequest)
    issued = gateway_of(request).access.issue(principal_of(request), ttl_s=wanted.ttl_s)
    return _created(
        SocketTicket(
            ticket=issued.ticket,
            expires_at=issued.expires_at,
            socket=f"/v1/ws?{_query(issued, {})}",
        )
    )


def _query(issued: Issued, more: dict[str, str]) -> str:
    return urlencode({**more, "ticket": issued.ticket})


def _created(body: StreamTicket | SocketTicket) -> ASGIApp:
    return json_response(body, 201, {"Cache-Control": "no-store"})


async def _body(request: Request, wanted: type[_Wanted]) -> _Wanted:
    """Raises RequestError."""
    data = await request.body()
    if not data.strip():
        return wanted()
    return decode_body(data, wanted)


def routes() -> list[Route]:
    return [
        Route("/v1/streams/{stream}/tickets", stream_ticket, methods=["POST"]),
        Route("/v1/tickets", socket_ticket, methods=["POST"]),
    ]
