"""OpenAI's interface: committed text only, in the shapes its clients know.

A stream that fails never looks complete: streaming, it ends with an error chunk and without
`[DONE]`; otherwise the answer is an error. It cannot be resumed, so a reader who leaves ends it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import msgspec
from starlette.routing import Route

from gateway.errors import HTTP_STATUS, RETRY_AFTER_S, BackendError
from gateway.outlet import Outlet
from gateway.transports.http import gateway_of, json_response
from gateway.transports.openai_requests import (
    decode_chat,
    decode_completion,
    from_chat,
    from_completion,
)
from gateway.transports.sse import EventStream, watch_disconnect
from protocol.errors import ErrorCode, RequestError
from protocol.events import Commit, Error, Finish, FinishReason, Heartbeat, Open, Part, PartKind
from protocol.requests import Hold

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

    from gateway.streams import Stream
    from gateway.subscription import Subscription
    from protocol.events import ServerEvent, Usage
    from protocol.requests import GenerationRequest

Json: TypeAlias = dict[str, Any]

COMPLETE_REASONS = frozenset({FinishReason.STOP, FinishReason.LENGTH, FinishReason.TOOL_CALLS})
"""Any other reason means that the text was cut short by somebody."""
DONE = b"data: [DONE]\n\n"


class Shape(Protocol):
    """Where text goes in a chunk and in a whole answer: chat or plain completion."""

    chunk_object: str
    object: str
    id_prefix: str

    def first(self) -> Json | None:
        """Choice of a chunk in front of all text, if the shape has one."""
        ...

    def delta(self, text: str, part: Part | Open) -> Json | None:
        """Choice of a chunk with `text` of `part`; None where the shape has no place for it."""
        ...

    def last(self, reason: str) -> Json: ...

    def whole(self, texts: list[tuple[str, str]], reason: str) -> Json:
        """Choice of a whole answer; `texts` are (kind, text) of all parts."""
        ...


class ChatShape:
    chunk_object = "chat.completion.chunk"
    object = "chat.completion"
    id_prefix = "chatcmpl-"

    def first(self) -> Json | None:
        return _choice(delta={"role": "assistant", "content": ""}, finish_reason=None)

    def delta(self, text: str, part: Part | Open) -> Json | None:
        match part.kind:
            case PartKind.TEXT:
                return _choice(delta={"content": text}, finish_reason=None)
            case PartKind.REASONING:
                return _choice(delta={"reasoning_content": text}, finish_reason=None)
            case _:
                return None

    def last(self, reason: str) -> Json:
        return _choice(delta={}, finish_reason=reason)

    def whole(self, texts: list[tuple[str, str]], reason: str) -> Json:
        message: Json = {"role": "assistant", "content": _joined(texts, PartKind.TEXT)}
        reasoning = _joined(texts, PartKind.REASONING)
        if reasoning:
            message["reasoning_content"] = reasoning
        return _choice(message=message, finish_reason=reason)


class CompletionShape:
    chunk_object = "text_completion"
    object = "text_completion"
    id_prefix = "cmpl-"

    def first(self) -> Json | None:
        return None

    def delta(self, text: str, part: Part | Open) -> Json | None:
        return _choice(text=text, finish_reason=None) if part.kind == PartKind.TEXT else None

    def last(self, reason: str) -> Json:
        return _choice(text="", finish_reason=reason)

    def whole(self, texts: list[tuple[str, str]], reason: str) -> Json:
        return _choice(text=_joined(texts, PartKind.TEXT), finish_reason=reason)


class ChunkFraming:
    """Events of a `hold` subscription as OpenAI's chunks."""

    def __init__(self, shape: Shape, head: Json, *, include_usage: bool) -> None:
        self._shape = shape
        self._head = {**head, "object": shape.chunk_object}
        self._include_usage = include_usage
        self._part: Part | Open | None = None

    def preamble(self) -> bytes:
        first = self._shape.first()
        return b"" if first is None else self._chunk([first])

    def encode(self, event: ServerEvent) -> bytes:
        match event:
            case Open() | Part():
                self._part = event
                return b""
            case Commit():
                assert self._part is not None
                choice = self._shape.delta(event.text, self._part)
                return b"" if choice is None else self._chunk([choice])
            case Finish(reason=reason) if reason not in COMPLETE_REASONS:
                return _data(_error_body(_cut_short(reason)))
            case Finish():
                last = self._chunk([self._shape.last(event.reason)])
                usage = self._chunk([], _usage(event.usage)) if self._include_usage else b""
                return last + usage + DONE
            case Error():
                return _data(_error_body(_as_request_error(event)))
            case Heartbeat():
                return b":\n\n"
            case _:  # a `hold` subscription is sent nothing tentative
                return b""

    def _chunk(self, choices: list[Json], usage: Json | None = None) -> bytes:
        chunk = {**self._head, "choices": choices}
        if self._include_usage:
            chunk["usage"] = usage
        return _data(chunk)


class Collected:
    """The whole answer at once: waits for the end, or for the reader to hang up."""

    def __init__(
        self, stream: Stream, subscription: Subscription, outlet: Outlet, shape: Shape, head: Json
    ) -> None:
        self._stream = stream
        self._subscription = subscription
        self._outlet = outlet
        self._shape = shape
        self._head = head

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watch = asyncio.create_task(watch_disconnect(receive, self._outlet))
        try:
            ending = await self._ending()
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
            self._subscription.leave()
        if ending is not None:
            await self._answer(ending)(scope, receive, send)

    async def _ending(self) -> Finish | Error | None:
        """None when the reader has gone."""
        while await self._outlet.woken():
            for event in self._subscription.collect():
                if isinstance(event, Finish | Error):
                    return event
        return None

    def _answer(self, ending: Finish | Error) -> Response:
        match ending:
            case Error():
                return _refusal(_as_request_error(ending))
            case Finish(reason=reason) if reason not in COMPLETE_REASONS:
                return _refusal(_cut_short(reason))
            case Finish(reason=reason, usage=usage):
                texts = [(part.kind, part.committed_text()) for part in self._stream.ledger.parts]
                return json_response(
                    {
                        **self._head,
                        "object": self._shape.object,
                        "choices": [self._shape.whole(texts, reason)],
                        "usage": _usage(usage),
                    }
                )


class _UntilGone:
    """Cancels a generation nobody can come back to, once its only reader has gone."""

    def __init__(self, stream: Stream, inner: ASGIApp) -> None:
        self._stream = stream
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._inner(scope, receive, send)
        finally:
            self._stream.cancel()


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
    stream = await gateway.generate(wanted)
    outlet = Outlet(gateway.clock, request.scope)
    subscription = stream.attach(Hold(), outlet=outlet)
    head: Json = {
        "id": shape.id_prefix + stream.id,
        "created": int(gateway.wall_clock()),
        "model": stream.model,
    }
    if streaming:
        framing = ChunkFraming(shape, head, include_usage=include_usage)
        return _UntilGone(stream, EventStream(subscription, outlet, framing))
    return _UntilGone(stream, Collected(stream, subscription, outlet, shape, head))


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
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status in (429, 503) else None
    return json_response(_error_body(error), status, headers)


def _error_body(error: RequestError | BackendError) -> Json:
    status = HTTP_STATUS[error.code]
    return {
        "error": {
            "message": error.message,
            "type": "server_error" if status >= 500 else "invalid_request_error",
            "param": getattr(error, "param", None),
            "code": error.code.value,
        }
    }


def _as_request_error(event: Error) -> RequestError:
    known = {code.value: code for code in ErrorCode}
    return RequestError(known.get(event.code, ErrorCode.ENGINE_FAILED), event.message)


def _cut_short(reason: str) -> RequestError:
    return RequestError(
        ErrorCode.ENGINE_FAILED, f"the answer is not complete: the stream ended with {reason!r}"
    )


def _choice(*, finish_reason: str | None, **content: Any) -> Json:
    return {"index": 0, **content, "logprobs": None, "finish_reason": finish_reason}


def _joined(texts: list[tuple[str, str]], kind: str) -> str:
    return "".join(text for part_kind, text in texts if part_kind == kind)


def _usage(usage: Usage) -> Json:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_prompt_tokens},
        "completion_tokens_details": {
            "accepted_prediction_tokens": usage.accepted_tokens,
            "rejected_prediction_tokens": usage.rejected_tokens,
        },
    }


def _data(body: Json) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def routes() -> list[Route]:
    return [
        Route("/v1/chat/completions", _openai_errors(chat_completions), methods=["POST"]),
        Route("/v1/completions", _openai_errors(completions), methods=["POST"]),
    ]
