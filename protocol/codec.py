"""Events and requests to bytes and back, as JSON and as MessagePack, from the same structs (SPEC
section 7.1).
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec

from protocol.errors import ErrorCode, RemoteProtocolError, RequestError
from protocol.events import ServerEvent
from protocol.refusals import Unparsed, cut, malformed, quoted, refusal
from protocol.repeated_names import refuse_repeated_names_json, refuse_repeated_names_msgpack
from protocol.requests import ClientMessage, GenerationRequest, Start

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

encode_json: Callable[[ServerEvent | ClientMessage | GenerationRequest], bytes]
encode_json = msgspec.json.Encoder().encode
encode_msgpack: Callable[[ServerEvent | ClientMessage], bytes]
encode_msgpack = msgspec.msgpack.Encoder().encode


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
MALFORMED = (msgspec.DecodeError, UnicodeError, RecursionError)
"""What msgspec raises for bytes that are no JSON or MessagePack at all. RecursionError: nesting."""
_MESSAGE = "the message"
_FLOAT_FOR_INT = re.compile(r"Expected `int( \| null)?`, got `float`")
"""How msgspec's message begins where the fraction is what it minds, even one of zero."""


def decode_event_json(data: bytes | str) -> ServerEvent | None:
    """One event; None for a type this version does not know. Raises RemoteProtocolError."""
    return _decode_event(data, _event_json.decode, _tagged_json.decode)


def decode_event_msgpack(data: bytes) -> ServerEvent | None:
    """One event; None for a type this version does not know. Raises RemoteProtocolError."""
    return _decode_event(data, _event_msgpack.decode, _tagged_msgpack.decode)


def decode_message_json(data: bytes | str) -> ClientMessage:
    """One WebSocket message of a client. Raises RequestError."""
    message = _decode(data, _message_json.decode, msgspec.json.decode, ClientMessage, _MESSAGE)
    refuse_repeated_names_json(data)
    return _checked(message)


def decode_message_msgpack(data: bytes) -> ClientMessage:
    """One WebSocket message of a client. Raises RequestError."""
    message = _decode(
        data,
        _message_msgpack.decode,
        msgspec.msgpack.decode,
        ClientMessage,
        _MESSAGE,
        "MessagePack",
    )
    refuse_repeated_names_msgpack(data)
    return _checked(message)


def decode_request(body: bytes) -> GenerationRequest:
    """Body of `POST /v1/streams`. Raises RequestError naming the field and what is allowed."""
    request = _decode(body, _request_json.decode, msgspec.json.decode, GenerationRequest)
    refuse_repeated_names_json(body)
    _require_one_input(request, "")
    _require_token_ids(request, "")
    return request


def decode_body(data: bytes, wanted: type[T]) -> T:
    """The JSON body of any other request.

    Raises RequestError, naming the field and what is allowed.
    """
    body = _decode(data, partial(msgspec.json.decode, type=wanted), msgspec.json.decode, wanted)
    refuse_repeated_names_json(data)
    return body


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
        except (msgspec.ValidationError, *MALFORMED):
            known = True
        if not known:
            return None
        raise RemoteProtocolError(f"broken event: {error}") from None
    except MALFORMED as error:
        raise RemoteProtocolError(f"broken event: {error}") from None


def _decode(
    data: bytes | str,
    decode: Callable[[Any], T],
    decode_raw: Callable[[Any], object],
    wanted: Any,
    whole: str = "the body",
    form: str = "JSON",
) -> T:
    try:
        return decode(data)
    except msgspec.ValidationError as error:
        refused = error
    except MALFORMED as error:
        raise malformed(error, data, whole=whole, form=form) from None
    try:
        raw = decode_raw(data)
    except msgspec.ValidationError:
        raw = Unparsed()
    except MALFORMED as error:  # behind the place that was refused
        raise malformed(error, data, whole=whole, form=form) from None
    return with_whole_numbers(refused, raw, wanted, whole)


def with_whole_numbers(
    refused: msgspec.ValidationError, raw: object, wanted: Any, whole: str = "the body"
) -> Any:
    """`raw`, which was refused as a `wanted`, with 3 for 3.0, which are one number in JSON Schema.

    Raises RequestError where that is not what was wrong.
    """
    if _FLOAT_FOR_INT.match(str(refused)):
        try:
            raw = _whole_numbers(raw)
            return msgspec.convert(raw, wanted)
        except msgspec.ValidationError as error:
            refused = error
        except RecursionError:  # too deep for us: it stays refused
            pass
    raise refusal(refused, raw, wanted, whole)


def _whole_numbers(value: Any) -> Any:
    match value:
        case float() if value.is_integer():
            return int(value)
        case dict():
            items = cast("dict[Any, Any]", value).items()
            return {name: _whole_numbers(each) for name, each in items}
        case list():
            return [_whole_numbers(each) for each in cast("list[Any]", value)]
        case _:
            return value


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
                f"{prefix}logit_bias: {quoted(key)} is not a token id, which is a decimal"
                " integer of at least 0",
                f"{prefix}logit_bias.{cut(key)}",
            )
