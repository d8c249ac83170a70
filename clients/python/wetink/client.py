"""The ways in: start a stream, attach to one, or share one WebSocket among several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, get_args

import msgspec

from protocol.codec import decode_request
from protocol.errors import RequestError
from protocol.events import IncludeItem, OffsetUnit
from protocol.receiver import Receiver
from wetink.errors import RequestRefused
from wetink.retry import Retry
from wetink.streams import Stream
from wetink.transports.base import AttachRequest, Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from protocol.requests import GenerationRequest, Message, PolicySpec

TransportName: TypeAlias = Literal["sse", "ws"]
_DEFAULT_RETRY = Retry()


def stream(
    url: str,
    *,
    prompt: str | None = None,
    messages: Sequence[Message | Mapping[str, str]] | None = None,
    policy: PolicySpec | str | None = None,
    offsets: OffsetUnit | str = OffsetUnit.CODEPOINT,
    transport: TransportName | Transport = "sse",
    key: str | None = None,
    headers: Mapping[str, str] | None = None,
    retry: Retry = _DEFAULT_RETRY,
    on_interruption: Callable[[], None] | None = None,
    **fields: Any,
) -> Stream:
    """Starts a generation at the server `url` and reads it.

    `url` is the server's root; "host:port" is short for "http://host:port". `key` is for a server
    that needs one, `headers` go with every request; a transport that is passed in has its own.
    `fields` are those of `protocol.requests.GenerationRequest` (`max_tokens`, `temperature`,
    `seed`, `stop`, `draft`, …). Raises RequestRefused at once for a field that no server takes.
    `on_interruption` is called once when the connection is lost, before the stream is resumed,
    which shows in a new `open`.

        async with wetink.stream(url, prompt="Once upon a time", policy="hold") as story:
            async for text in story.committed():
                …
    """
    own, chosen = _transport(url, transport, _headers(key, headers))
    request = _request(
        {"prompt": prompt, "messages": messages, "policy": policy, "offsets": offsets, **fields}
    )
    receiver = Receiver(request.offsets)
    return Stream(
        chosen,
        request,
        receiver,
        retry=retry,
        owns_transport=own,
        on_interruption=on_interruption,
    )


def attach(
    url: str,
    stream_id: str,
    *,
    cursor: str | None = None,
    held: str | None = None,
    policy: PolicySpec | str | None = None,
    offsets: OffsetUnit | str = OffsetUnit.CODEPOINT,
    include: Sequence[IncludeItem] = (),
    transport: TransportName | Transport = "sse",
    key: str | None = None,
    headers: Mapping[str, str] | None = None,
    retry: Retry = _DEFAULT_RETRY,
    on_interruption: Callable[[], None] | None = None,
) -> Stream:
    """Reads a stream that somebody else started, or that was read up to `cursor` before.

    Without a cursor it is read from its beginning. With one, the text begins with `held`: the
    committed text of the current part that this client kept, which ends at the cursor. Several
    attachments to one stream may have different policies. Raises RequestRefused for a broken
    cursor.
    """
    own, chosen = _transport(url, transport, _headers(key, headers))
    request = AttachRequest(
        stream=stream_id,
        cursor=cursor,
        policy=policy,
        offsets=OffsetUnit(offsets),
        include=list(include),
    )
    try:
        receiver = Receiver(request.offsets, cursor=cursor, held=held)
    except RequestError as error:
        raise _refused(error) from error
    return Stream(
        chosen,
        request,
        receiver,
        retry=retry,
        owns_transport=own,
        on_interruption=on_interruption,
    )


def connect(
    url: str, *, key: str | None = None, headers: Mapping[str, str] | None = None
) -> Connection:
    """One WebSocket for several streams.

    async with wetink.connect(url) as connection:
        async with connection.stream(prompt="a") as a, connection.stream(prompt="b") as b:
            …
    """
    from wetink.transports.websocket import WebSocketTransport

    return Connection(url, WebSocketTransport(url, headers=_headers(key, headers)))


class Connection:
    """Streams that share a WebSocket. A slow reader of one does not hold up the others."""

    def __init__(self, url: str, transport: Transport) -> None:
        self._url = url
        self._transport = transport

    def stream(self, **fields: Any) -> Stream:
        """As `wetink.stream`, without `url` and `transport`."""
        return stream(self._url, transport=self._transport, **fields)

    def attach(self, stream_id: str, **options: Any) -> Stream:
        """As `wetink.attach`, without `url` and `transport`."""
        return attach(self._url, stream_id, transport=self._transport, **options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._transport.aclose()


def _headers(key: str | None, headers: Mapping[str, str] | None) -> dict[str, str]:
    credentials = {} if key is None else {"Authorization": f"Bearer {key}"}
    return {**(headers or {}), **credentials}


def _transport(
    url: str, transport: TransportName | Transport, headers: Mapping[str, str]
) -> tuple[bool, Transport]:
    """The transport, and whether the stream shall close it. Their libraries take a while to import,
    so each is imported when it is first asked for.
    """
    match transport:
        case "sse":
            from wetink.transports.sse import SSETransport

            return True, SSETransport(url, headers=headers)
        case "ws":
            from wetink.transports.websocket import WebSocketTransport

            return True, WebSocketTransport(url, headers=headers)
        case str():  # pyright: ignore[reportUnnecessaryComparison]: not everybody has a type checker
            allowed = " or ".join(map(repr, get_args(TransportName)))
            raise ValueError(f"transport is {allowed} (or an object), not {transport!r}")
        case _:
            return False, transport


def _request(fields: dict[str, Any]) -> GenerationRequest:
    """Checked by the protocol's own decoder, so that a mistake reads the same here and there."""
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        return decode_request(msgspec.json.encode(given))
    except RequestError as error:
        raise _refused(error) from error


def _refused(error: RequestError) -> RequestRefused:
    return RequestRefused(error.code, error.message, error.param)
