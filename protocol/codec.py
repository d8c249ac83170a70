"""Events and requests to bytes and back, as JSON and as MessagePack, from the same structs (SPEC
section 7.1).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from protocol.errors import ErrorCode, RemoteProtocolError, RequestError
from protocol.events import ServerEvent
from protocol.refusals import Unparsed, refusal
from protocol.requests import ClientMessage, GenerationRequest, Start

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_json_encoder = msgspec.json.Encoder()
_msgpack_encoder = msgspec.msgpack.Encoder()


class _Tagged(msgspec.Struct, frozen=True):
    type: str


_event_json: msgspec.json.Decoder[ServerEvent] = msgspec.json.Decoder(ServerEvent)
_event_msgpack: msgspec.msgpack.Decoder[ServerEvent] = msgspec.msgpack.Decoder(ServerEvent)
_tagged_json = msgspec.json.Decoder(_Tagged)
_tagged_msgpack = msgspec.msgpack.Decoder(_Tagged)
_message_json: msgspec.json.Decoder[ClientMessage] = msgspec.json.Decoder(ClientMessage)
_message_msgpack: msgspec.msgpack.Decoder[ClientMessage] = msgspec.msgpack.Decoder(ClientMessage)
_request_json = msgspec.json.Decoder(GenerationRequest)

_EVENT_TYPES = frozenset(
    ("open", "tentative", "commit", "retract", "part", "finish", "error", "heartbeat")
)
# What msgspec raises for bytes that are no JSON or MessagePack at all. RecursionError: nesting.
_MALFORMED = (msgspec.DecodeError, UnicodeError, RecursionError)


def encode_json(message: ServerEvent | ClientMessage | GenerationRequest) -> bytes:
    return _json_encoder.encode(message)


def encode_msgpack(message: ServerEvent | ClientMessage) -> bytes:
    return _msgpack_encoder.encode(message)


def decode_event_json(data: bytes | str) -> ServerEvent | None:
    """One event; None for a type this version does not know. Raises RemoteProtocolError."""
    return _decode_event(data, _event_json.decode, _tagged_json.decode)


def decode_event_msgpack(data: bytes) -> ServerEvent | None:
    """One event; None for a type this version does not know. Raises RemoteProtocolError."""
    return _decode_event(data, _event_msgpack.decode, _tagged_msgpack.decode)


def decode_message_json(data: bytes | str) -> ClientMessage:
    """One WebSocket message of a client. Raises RequestError."""
    message = _decode(data, _message_json.decode, msgspec.json.decode, ClientMessage)
    _refuse_repeated_names(data)
    return _checked(message)


def decode_message_msgpack(data: bytes) -> ClientMessage:
    """One WebSocket message of a client. Raises RequestError."""
    return _checked(_decode(data, _message_msgpack.decode, msgspec.msgpack.decode, ClientMessage))


def decode_request(body: bytes) -> GenerationRequest:
    """Body of `POST /v1/streams`. Raises RequestError naming the field and what is allowed."""
    request = _decode(body, _request_json.decode, msgspec.json.decode, GenerationRequest)
    _refuse_repeated_names(body)
    _require_one_input(request, "")
    _require_token_ids(request, "")
    return request


def _decode_event(
    data: bytes | str,
    decode: Callable[[Any], ServerEvent],
    decode_type: Callable[[Any], _Tagged],
) -> ServerEvent | None:
    try:
        return decode(data)
    except msgspec.ValidationError as error:
        try:
            known = decode_type(data).type in _EVENT_TYPES
        except (msgspec.ValidationError, *_MALFORMED):
            known = True
        if not known:
            return None
        raise RemoteProtocolError(f"broken event: {error}") from None
    except _MALFORMED as error:
        raise RemoteProtocolError(f"broken event: {error}") from None


def _decode(
    data: bytes | str, decode: Callable[[Any], T], decode_raw: Callable[[Any], object], wanted: Any
) -> T:
    try:
        return decode(data)
    except msgspec.ValidationError as error:
        raise refusal(error, _look(data, decode_raw), wanted) from None
    except _MALFORMED as error:
        raise _malformed(error) from None


def _look(data: bytes | str, decode: Callable[[Any], object]) -> object:
    """The refused value without its types; what follows the refused place may be malformed."""
    try:
        return decode(data)
    except msgspec.ValidationError:
        return Unparsed()
    except _MALFORMED as error:
        raise _malformed(error) from None


def _malformed(error: Exception) -> RequestError:
    return RequestError(ErrorCode.MALFORMED_JSON, f"the body cannot be parsed: {error}")


def _checked(message: ClientMessage) -> ClientMessage:
    if isinstance(message, Start):
        _require_one_input(message.request, "request.")
        _require_token_ids(message.request, "request.")
    return message


def _require_one_input(request: GenerationRequest, prefix: str) -> None:
    if request.prompt is None and request.messages is None:
        raise RequestError(
            ErrorCode.MISSING_FIELD, "give either prompt or messages", f"{prefix}prompt"
        )
    if request.prompt is not None and request.messages is not None:
        raise RequestError(
            ErrorCode.INVALID_VALUE, "give either prompt or messages, not both", f"{prefix}messages"
        )


def _require_token_ids(request: GenerationRequest, prefix: str) -> None:
    for key in request.logit_bias:
        if not (key.isascii() and key.isdecimal()):
            raise RequestError(
                ErrorCode.INVALID_VALUE,
                f"{prefix}logit_bias: {key!r} is not a token id (a non-negative decimal integer)",
                f"{prefix}logit_bias.{key}",
            )


def _refuse_repeated_names(data: bytes | str) -> None:
    """msgspec keeps the last of two values of one name; a user who wrote two meant something else.

    `data` has been decoded once, so it is valid and not deeply nested. Numbers stay strings: a long
    one costs nothing.
    """
    json.loads(data, object_pairs_hook=_pairs, parse_int=str, parse_float=str)


def _pairs(pairs: list[tuple[str, object]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise RequestError(ErrorCode.INVALID_VALUE, f"{name} is given twice", name)
        seen.add(name)
