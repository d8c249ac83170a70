"""`POST /v1/responses`."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from gateway.responses import json_response
from gateway.transports.openai.responses.events import (
    Json,
    ResponseEvents,
    ResponseFraming,
    call_id,
)
from gateway.transports.openai.responses.requests import (
    decode,
    generation_of,
    in_words_of_responses,
    messages_of,
)
from gateway.transports.requests import gateway_of, principal_of, while_connected
from gateway.transports.sse import EventStream, watch_disconnect
from protocol.errors import ErrorCode, RequestError
from protocol.events import PartKind
from protocol.ledger import Completed
from protocol.requests import Call, Hold, Message

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from gateway.access import Principal
    from gateway.delivery import Attachment, Connection
    from gateway.service import Gateway
    from gateway.streams import Stream
    from gateway.transports.openai.responses.bodies import ResponseRequest

PREFIX = "resp_"


async def create_response(request: Request) -> ASGIApp:
    gateway, principal = gateway_of(request), principal_of(request)
    wanted = decode(await request.body())
    earlier = _earlier(gateway, principal, wanted.previous_response_id)
    conversation = [*earlier, *messages_of(wanted)]
    try:
        context = gateway.model(wanted.model, principal).context_length
        generation = generation_of(wanted, conversation, context)
        beginning = gateway.generate(generation, Hold(), principal, is_kept=wanted.store)
        stream = await while_connected(request, beginning)
    except RequestError as error:
        raise in_words_of_responses(error) from None
    if wanted.store:
        stream.conversation = conversation
    connection = gateway.connection(request.scope)
    try:
        attachment = stream.attach(Hold(), connection=connection)
    except RequestError:
        gateway.streams.discard(stream)
        raise
    events = ResponseEvents(_begun(wanted, stream, int(gateway.wall_clock())), stream.id)
    if wanted.stream:
        return EventStream(attachment, connection, ResponseFraming(events))
    return _Whole(attachment, connection, events)


class _Whole:
    """Waits for the end of the response, or for its reader to hang up."""

    def __init__(
        self, attachment: Attachment, connection: Connection, events: ResponseEvents
    ) -> None:
        self._attachment = attachment
        self._connection = connection
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watch = asyncio.create_task(watch_disconnect(receive, self._connection))
        try:
            if await self._ended():
                await json_response(self._events.response)(scope, receive, send)
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
            self._attachment.leave()

    async def _ended(self) -> bool:
        while not self._attachment.closed:
            if not await self._connection.woken():
                return False
            for event in self._attachment.collect():
                self._events.feed(event)
        return True


def _earlier(gateway: Gateway, principal: Principal, id: str | None) -> list[Message]:
    """The conversation up to and with the response `id`. Raises RequestError where it is not kept,
    or not complete.
    """
    if id is None:
        return []
    param = "previous_response_id"
    try:
        stream = gateway.streams.get(id.removeprefix(PREFIX), principal)
    except RequestError as error:
        message = f"{param}: there is no such response, or it is not kept any more"
        raise RequestError(error.code, message, param) from None
    if not stream.conversation or not isinstance(stream.ledger.ending, Completed):
        raise RequestError(
            ErrorCode.INVALID_VALUE, f"{param}: that response was not stored, or has no end", param
        )
    return [*stream.conversation, _answer(stream)]


def _answer(stream: Stream) -> Message:
    """What the stream said, as a message; its calls are numbered as items are."""
    text = ""
    calls: list[Call] = []
    items = 0
    for part in stream.ledger.parts:
        said = part.committed_text()
        if part.kind == PartKind.TEXT:
            text += said
        elif part.kind == PartKind.TOOL_CALL:
            calls.append(Call(part.name or "", said, call_id(stream.id, items)))
        items += bool(said) or part.kind == PartKind.TOOL_CALL
    return Message("assistant", text, calls)


def _begun(wanted: ResponseRequest, stream: Stream, created: int) -> Json:
    return {
        "id": PREFIX + stream.id,
        "object": "response",
        "created_at": created,
        "status": "in_progress",
        "model": stream.model,
        "output": [],
        "error": None,
        "incomplete_details": None,
        "instructions": wanted.instructions,
        "max_output_tokens": wanted.max_output_tokens,
        "metadata": {},
        "parallel_tool_calls": wanted.parallel_tool_calls,
        "previous_response_id": wanted.previous_response_id,
        "store": wanted.store,
        "temperature": wanted.temperature,
        "text": msgspec.to_builtins(wanted.text),
        "tool_choice": msgspec.to_builtins(wanted.tool_choice),
        "tools": msgspec.to_builtins(wanted.tools),
        "top_p": wanted.top_p,
        "truncation": "disabled",
        "usage": None,
    }
