"""Answers of OpenAI's endpoints as ASGI responses: a stream of chunks, or the whole at once.

An answer that fails never looks complete: streaming, it ends with an error chunk and without
`[DONE]`; otherwise it is an error. It cannot be resumed, so a reader who leaves ends it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from gateway.delivery.shaping import padded_stream
from gateway.responses import json_response
from gateway.transports.openai.choices import Reading
from gateway.transports.openai.errors import as_request_error, cut_short, error_shape, refused
from gateway.transports.openai.shapes import COMPLETE_REASONS, usage_shape
from gateway.transports.sse import HEADERS, watch_disconnect
from protocol.events import Commit, Error, Finish, Heartbeat, Open, Part, Retract, Tentative

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

    from gateway.transports.openai.choices import Choices
    from gateway.transports.openai.requests import Wanted
    from gateway.transports.openai.shapes import Json, Piece, Shape
    from protocol.errors import RequestError
    from protocol.events import ServerEvent, Usage

DONE = b"data: [DONE]\n\n"


class _Answer:
    """Runs `_send`, while somebody is there to read it."""

    def __init__(self, choices: Choices, wanted: Wanted, shape: Shape, created: int) -> None:
        self._choices = choices
        self._wanted = wanted
        self._shape = shape
        self._head: Json = {
            "id": shape.id_prefix + choices.ids[0],
            "created": created,
            "model": choices.model,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watch = asyncio.create_task(watch_disconnect(receive, self._choices.connection))
        try:
            await self._send(scope, receive, send)
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
            self._choices.end()

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise NotImplementedError


class Whole(_Answer):
    """Waits for the end of all choices, or for the reader to hang up."""

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._response()
        if response is not None:
            await response(scope, receive, send)

    async def _response(self) -> Response | None:
        """None when the reader has gone."""
        count = len(self._wanted.choices)
        readings = [Reading(logprobs=self._wanted.logprobs) for _ in range(count)]
        pieces: list[list[Piece]] = [[] for _ in range(count)]
        endings: dict[int, Finish] = {}
        async for told in self._choices.told():
            for index, event in told:
                match event:
                    case Open() | Part():
                        pieces[index].append(readings[index].begin(event))
                    case Commit():
                        pieces[index].append(readings[index].piece(event))
                    case Error():
                        return refused(as_request_error(event))
                    case Finish(reason=reason) if reason not in COMPLETE_REASONS:
                        return refused(cut_short(reason))
                    case Finish():
                        endings[index] = event
                    case _:
                        pass
        if len(endings) < count:
            return None
        finishes = [endings[index] for index in range(count)]
        choices = [
            self._shape.whole(index, pieces[index], finish.reason, self._choices.ids[index])
            for index, finish in enumerate(finishes)
        ]
        usage = usage_shape([finish.usage for finish in finishes], self._wanted.per_prompt)
        body = {**self._head, "object": self._shape.object, "choices": choices, "usage": usage}
        return json_response(body)


class Chunks(_Answer):
    """Sends chunks as there is text."""

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        framing = ChunkFraming(self._shape, self._head, self._wanted, self._choices.ids)
        headers = [*HEADERS]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for told in self._choices.told():
            body = b"".join(framing.encode(index, event) for index, event in told)
            if self._choices.pad is not None:
                body = padded_stream(body, self._choices.pad)
            message = {
                "type": "http.response.body",
                "body": body,
                "more_body": not framing.ended,
            }
            await self._choices.connection.write(send(message))
            if framing.ended:
                return


class ChunkFraming:
    """Events of all choices as OpenAI's chunks, and the end of the whole."""

    def __init__(self, shape: Shape, head: Json, wanted: Wanted, ids: list[str]) -> None:
        """`ids`: by choice, what its calls are named after."""
        self.ended = False
        """Whether nothing may follow: all choices have ended, or one has failed."""
        self._shape = shape
        self._head = {**head, "object": shape.chunk_object}
        self._wanted = wanted
        self._ids = ids
        self._readings = [Reading(logprobs=wanted.logprobs) for _ in wanted.choices]
        self._usages: dict[int, Usage] = {}

    def encode(self, index: int, event: ServerEvent) -> bytes:
        if self.ended:
            return b""
        shape, reading = self._shape, self._readings[index]
        match event:
            case Open():
                reading.begin(event)
                return self._chunk(index, shape.first(index), event)
            case Part():
                begun = shape.begin(index, reading.begin(event), self._ids[index])
                return self._chunk(index, begun, event)
            case Commit():
                return self._chunk(index, shape.delta(index, reading.piece(event)), event)
            case Tentative() | Retract():
                return self._chunk(index, None, event)
            case Finish(reason=reason) if reason not in COMPLETE_REASONS:
                return self._failed(cut_short(reason))
            case Finish(reason=reason, usage=usage):
                self._usages[index] = usage
                return self._chunk(index, shape.last(index, reason), event) + self._end()
            case Error():
                return self._failed(as_request_error(event))
            case Heartbeat():
                return b":\n\n"

    def _chunk(self, index: int, choice: Json | None, event: ServerEvent) -> bytes:
        """Nothing where there is nothing to say in OpenAI's words, unless Wetink's are wanted."""
        vendor = self._wanted.vendor
        if choice is None and not vendor:
            return b""
        chunk = {**self._head, "choices": [choice or self._shape.empty(index)]}
        if self._wanted.include_usage:
            chunk["usage"] = None
        if vendor:
            chunk["wetink"] = event
        return _data(chunk)

    def _end(self) -> bytes:
        count = len(self._readings)
        if len(self._usages) < count:
            return b""
        self.ended = True
        if not self._wanted.include_usage:
            return DONE
        usages = [self._usages[index] for index in range(count)]
        usage = usage_shape(usages, self._wanted.per_prompt)
        return _data({**self._head, "choices": [], "usage": usage}) + DONE

    def _failed(self, error: RequestError) -> bytes:
        self.ended = True
        return _data(error_shape(error))


def _data(body: object) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n"
