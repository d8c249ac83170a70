"""Server-sent events over httpx: one HTTP response per attachment (SPEC section 7.2)."""

from __future__ import annotations

from collections import deque
from contextlib import aclosing
from http import HTTPStatus
from typing import TYPE_CHECKING, cast
from urllib.parse import quote

import httpx
import msgspec

from protocol.codec import decode_event_json
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.events import OffsetUnit, ServerEvent
from protocol.requests import Chunk, Hold, StreamRetract
from protocol.sse import SSEEvent, SSEParser
from wetink.errors import ProtocolViolation, RequestRefused
from wetink.transports.base import (
    CONNECT_TIMEOUT_S,
    IDLE_TIMEOUT_S,
    RETRYABLE_REFUSALS,
    Address,
    AttachRequest,
    Interrupted,
)
from wetink.transports.refusals import refusal

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from protocol.requests import GenerationRequest, PolicySpec

MAX_ERROR_BODY_BYTES = 64 * 1024
_GONE = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
_EVENT_STREAM = "text/event-stream"


class SSETransport:
    """`url` is the server's root ("http://127.0.0.1:8000"). `client`: for callers with their own
    httpx settings (proxies, certificates); it is theirs to close.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        client: httpx.AsyncClient | None = None,
    ) -> None:
        self._base = Address.parse(url).http
        self._headers = {**(headers or {}), "Accept-Encoding": "identity"}
        self._owns_client = client is None
        self._client = client or httpx.AsyncClient()

    async def start(self, request: GenerationRequest) -> SSEAttachment:
        response = await self._send(
            self._build(
                "POST",
                "/v1/streams",
                content=msgspec.json.encode(request),
                headers={"Content-Type": "application/json"},
            )
        )
        if response.status_code != HTTPStatus.OK:
            raise await _refusal(response)
        return await _attachment(response)

    async def attach(self, request: AttachRequest) -> SSEAttachment | None:
        path = f"/v1/streams/{quote(request.stream, safe='')}/events"
        response = await self._send(self._build("GET", path, params=_query(request)))
        if response.status_code == HTTPStatus.NO_CONTENT:
            await response.aclose()
            return None
        if response.status_code != HTTPStatus.OK:
            refused = await _refusal(response)
            if isinstance(refused, RequestRefused) and refused.code in RETRYABLE_REFUSALS:
                raise Interrupted(str(refused), retry_after=refused.retry_after_s)
            raise refused
        return await _attachment(response)

    async def cancel(self, stream: str) -> None:
        path = f"/v1/streams/{quote(stream, safe='')}"
        response = await self._send(self._build("DELETE", path))
        if response.is_success or response.status_code in _GONE:
            await response.aclose()
            return
        raise await _refusal(response)

    async def acknowledge(self, stream: str, part: int, at: int) -> bool:
        """An event stream has no way back (SPEC section 7.3.3)."""
        return False

    async def aclose(self) -> None:
        if self._owns_client:
            await self._client.aclose()

    def _build(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Request:
        return self._client.build_request(
            method,
            self._base + path,
            params=params,
            content=content,
            headers={**self._headers, "Accept": _EVENT_STREAM, **(headers or {})},
            timeout=httpx.Timeout(CONNECT_TIMEOUT_S, read=IDLE_TIMEOUT_S),
        )

    async def _send(self, request: httpx.Request) -> httpx.Response:
        try:
            return await self._client.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Interrupted(_reason(error), unreachable=True) from error
        except httpx.TransportError as error:
            raise Interrupted(_reason(error)) from error


class SSEAttachment:
    """Reads one response. Holds at most the events of one network read and one unfinished event,
    which the parser bounds.
    """

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._chunks = cast("AsyncGenerator[bytes]", response.aiter_raw())
        self._parser = SSEParser()
        self._ready: deque[SSEEvent] = deque()

    async def receive(self) -> ServerEvent:
        while True:
            while self._ready:
                event = _decode(self._ready.popleft())
                if event is not None:
                    return event
            if self._parser.failure is not None:
                failure = self._parser.failure
                raise ProtocolViolation(failure.code, failure.message)
            await self._read()

    async def aclose(self) -> None:
        await self._chunks.aclose()  # trio complains of one that is left to the garbage collector
        await self._response.aclose()

    async def _read(self) -> None:
        try:
            chunk = await anext(self._chunks)
        except StopAsyncIteration:
            raise Interrupted("the server closed the event stream") from None
        except (httpx.TransportError, httpx.StreamError) as error:
            raise Interrupted(_reason(error)) from error
        self._ready.extend(self._parser.feed(chunk))


def _decode(event: SSEEvent) -> ServerEvent | None:
    try:
        return decode_event_json(event.data)
    except RemoteProtocolError as error:
        raise ProtocolViolation(error.code, error.message) from error


async def _attachment(response: httpx.Response) -> SSEAttachment:
    content_type = response.headers.get("Content-Type", "")
    if content_type.partition(";")[0].strip().lower() != _EVENT_STREAM:
        await response.aclose()
        raise ProtocolViolation(
            ErrorCode.PROTOCOL_VIOLATION,
            f"{response.url} answered with {content_type or 'no content type'}, "
            "not with an event stream; is this a Wetink gateway?",
        )
    return SSEAttachment(response)


async def _refusal(response: httpx.Response) -> RequestRefused | Interrupted:
    """What a status other than 200 means. Reads at most `MAX_ERROR_BODY_BYTES` of the body."""
    body = bytearray()
    try:
        async with aclosing(cast("AsyncGenerator[bytes]", response.aiter_raw())) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > MAX_ERROR_BODY_BYTES:
                    break
    except httpx.TransportError as error:
        return Interrupted(_reason(error))
    finally:
        await response.aclose()
    return refusal(response.status_code, response.reason_phrase, response.headers, bytes(body))


def _query(request: AttachRequest) -> dict[str, str]:
    query = {"offsets": request.offsets.value}
    if request.cursor is not None:
        query["cursor"] = request.cursor
    if request.policy is not None:
        query["policy"] = _policy_text(request.policy)
    if request.include:
        query["include"] = ",".join(request.include)
    if request.offsets is OffsetUnit.CODEPOINT:
        del query["offsets"]
    return query


def _policy_text(policy: PolicySpec | str) -> str:
    """The short form where it says everything, else the policy as JSON."""
    match policy:
        case str():
            return policy
        case Hold() if policy == Hold():
            return "hold"
        case StreamRetract(max_tail=None) if policy == StreamRetract():
            return "retract"
        case StreamRetract(max_tail=int(max_tail)) if policy == StreamRetract(max_tail=max_tail):
            return f"retract:{max_tail}"
        case Chunk(unit=unit) if policy == Chunk(unit=unit):
            return f"chunk:{unit}"
        case _:
            return msgspec.json.encode(policy).decode()


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
