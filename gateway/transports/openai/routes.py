"""OpenAI's interface: committed text only, in the shapes its clients know.

A stream that fails never looks complete: streaming, it ends with an error chunk and without
`[DONE]`; otherwise the answer is an error. It cannot be resumed, so a reader who leaves ends it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import msgspec
from starlette.routing import Route

from gateway.errors import HTTP_STATUS, BackendError
from gateway.responses import json_response, retry_headers
from gateway.transports.openai.requests import (
    decode_chat,
    decode_completion,
    from_chat,
    from_completion,
)
from gateway.transports.openai.shapes import (
    COMPLETE_REASONS,
    ChatShape,
    ChunkFraming,
    CompletionShape,
    as_request_error,
    cut_short,
    error_shape,
    usage_shape,
)
from gateway.transports.requests import gateway_of
from gateway.transports.sse import EventStream, watch_disconnect
from protocol.errors import RequestError
from protocol.events import Error, Finish
from protocol.requests import Hold

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

    from gateway.delivery import Attachment, Connection
    from gateway.streams import Stream
    from gateway.transports.openai.shapes import Json, Shape
    from protocol.requests import GenerationRequest


class Collected:
    """The whole answer at once: waits for the end, or for the reader to hang up."""

    def __init__(
        self,
        stream: Stream,
        attachment: Attachment,
        connection: Connection,
        shape: Shape,
        head: Json,
    ) -> None:
        self._stream = stream
        self._attachment = attachment
        self._connection = connection
        self._shape = shape
        self._head = head

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watch = asyncio.create_task(watch_disconnect(receive, self._connection))
        try:
            ending = await self._ending()
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
            self._attachment.leave()
        if ending is not None:
            await self._answer(ending)(scope, receive, send)

    async def _ending(self) -> Finish | Error | None:
        """None when the reader has gone."""
        while await self._connection.woken():
            for event in self._attachment.collect():
                if isinstance(event, Finish | Error):
                    return event
        return None

    def _answer(self, ending: Finish | Error) -> Response:
        match ending:
            case Error():
                return _refusal(as_request_error(ending))
            case Finish(reason=reason) if reason not in COMPLETE_REASONS:
                return _refusal(cut_short(reason))
            case Finish(reason=reason, usage=usage):
                texts = [(part.kind, part.committed_text()) for part in self._stream.ledger.parts]
                return json_response(
                    {
                        **self._head,
                        "object": self._shape.object,
                        "choices": [self._shape.whole(texts, reason)],
                        "usage": usage_shape(usage),
                    }
                )


class _UntilGone:
    """Discards a stream nobody can come back to, once its only reader has gone."""

    def __init__(self, discard: Callable[[], None], inner: ASGIApp) -> None:
        self._discard = discard
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._inner(scope, receive, send)
        finally:
            self._discard()


async def chat_completions(request: Request) -> ASGIApp:
    wanted = decode_chat(await request.body())
    usage = wanted.stream_options is not None and wanted.stream_options.include_usage
    return await _run(request, from_chat(wanted), ChatShape(), bool(wanted.stream), usage)


async def completions(request: Request) -> ASGIApp:
    wanted = decode_completion(await request.body())
    usage = wanted.stream_options is not None and wanted.stream_options.include_usage
    shape = CompletionShape()
    return await _run(request, from_completion(wanted), shape, bool(wanted.stream), usage)


async def _run(
    request: Request,
    wanted: GenerationRequest,
    shape: Shape,
    streaming: bool,
    include_usage: bool,
) -> ASGIApp:
    gateway = gateway_of(request)
    connection = gateway.connection(request.scope)
    stream = await gateway.generate(
        msgspec.structs.replace(wanted, policy=Hold()), connection.client.streams
    )
    stream.is_kept = False  # chunks carry no cursor
    try:
        attachment = stream.attach(Hold(), connection=connection, encoding="openai")
    except RequestError:
        gateway.streams.discard(stream)
        raise
    discard = partial(gateway.streams.discard, stream)
    head: Json = {
        "id": shape.id_prefix + stream.id,
        "created": int(gateway.wall_clock()),
        "model": stream.model,
    }
    if streaming:
        framing = ChunkFraming(shape, head, include_usage=include_usage)
        return _UntilGone(discard, EventStream(attachment, connection, framing))
    return _UntilGone(discard, Collected(stream, attachment, connection, shape, head))


def _openai_errors(
    endpoint: Callable[[Request], Awaitable[ASGIApp]],
) -> Callable[[Request], Awaitable[ASGIApp]]:
    """Refusals in OpenAI's shape: ours plus `type`."""

    async def answered(request: Request) -> ASGIApp:
        try:
            return await endpoint(request)
        except (RequestError, BackendError) as error:
            return _refusal(error)

    return answered


def _refusal(error: RequestError | BackendError) -> Response:
    status = HTTP_STATUS[error.code]
    return json_response(error_shape(error), status, retry_headers(status))


def routes() -> list[Route]:
    return [
        Route("/v1/chat/completions", _openai_errors(chat_completions), methods=["POST"]),
        Route("/v1/completions", _openai_errors(completions), methods=["POST"]),
    ]
