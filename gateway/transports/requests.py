"""What a request says besides its body: which gateway it reached, and what it wants to read."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec
from starlette.requests import ClientDisconnect

from gateway.service import PRINCIPAL
from protocol import cursor as cursors
from protocol.errors import ErrorCode, RequestError
from protocol.events import OffsetUnit
from protocol.refusals import cut, refusal
from protocol.requests import Include

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from starlette.requests import Request

    from gateway.access import Principal
    from gateway.service import Gateway
    from protocol.cursor import Cursor

_Result = TypeVar("_Result")
LAST_EVENT_ID = "Last-Event-ID"


class AttachQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Query of `GET /v1/streams/{id}/events`."""

    policy: str | None = None
    """`hold`, `retract`, `retract:<max tail>`, `chunk`, `chunk:<unit>`, a profile's name, or a
    policy object as JSON."""
    offsets: OffsetUnit = OffsetUnit.CODEPOINT
    cursor: str | None = None
    """Where to go on. A `Last-Event-ID` header is newer than the URL and wins over it."""
    include: Include = []
    """Comma-separated."""
    ticket: str | None = None
    """In place of a key; the gate has looked at it."""


def gateway_of(request: Request) -> Gateway:
    return cast("Gateway", request.app.state.gateway)


def principal_of(request: Request) -> Principal:
    return cast("Principal", request.scope[PRINCIPAL])


def read_query(request: Request) -> AttachQuery:
    """Raises RequestError naming the parameter and what is allowed."""
    raw: dict[str, Any] = {}
    for name, value in request.query_params.multi_items():
        if name == "include":
            raw.setdefault(name, []).extend(item for item in value.split(",") if item)
        elif name in raw:
            raise RequestError(
                ErrorCode.INVALID_VALUE, f"{cut(name)} is given twice; give it once", cut(name)
            )
        else:
            raw[name] = value
    try:
        return msgspec.convert(raw, AttachQuery, strict=False)
    except msgspec.ValidationError as error:
        raise refusal(error, raw, AttachQuery, "the query string") from None


def read_cursor(request: Request, query: AttachQuery) -> Cursor | None:
    """A browser that reconnects repeats its URL and adds the header, so the header wins.

    Raises RequestError for a malformed cursor.
    """
    last_event_id = request.headers.get(LAST_EVENT_ID)
    if last_event_id:
        try:
            return cursors.parse(last_event_id)
        except RequestError as error:
            raise RequestError(error.code, error.message, LAST_EVENT_ID) from None
    return None if query.cursor is None else cursors.parse(query.cursor)


async def while_connected(request: Request, work: Coroutine[Any, Any, _Result]) -> _Result:
    """What `work` gives. It is cancelled when the client hangs up: nobody waits for a turn, and
    then takes one, on behalf of somebody who has gone.

    `request`: one whose body has been read. Raises ClientDisconnect, or what `work` raises.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        working.cancel()
        watching.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def wants_event_stream(request: Request) -> bool:
    """Whether `Accept` names event streams."""
    ranges = request.headers.get("accept", "").lower().split(",")
    return any(item.split(";")[0].strip() == "text/event-stream" for item in ranges)
