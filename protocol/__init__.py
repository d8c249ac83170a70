"""The wire protocol of Wetink, sans-I/O. `SPEC.md` is its normative text."""

from protocol.client import Change, ClientStream, Failure
from protocol.cursor import Cursor
from protocol.errors import (
    ErrorCode,
    LedgerError,
    LocalProtocolError,
    ProtocolError,
    RemoteProtocolError,
    RequestError,
    WetinkError,
)
from protocol.events import PROTOCOL_VERSION, OffsetUnit, ServerEvent
from protocol.ledger import Ledger, PartLedger
from protocol.requests import ClientMessage, GenerationRequest, PolicySpec
from protocol.server import ServerStream, View
from protocol.sse import EventWriter, SSEEvent, SSEParser
from protocol.states import State
from protocol.view import PartView

__all__ = [
    "PROTOCOL_VERSION",
    "Change",
    "ClientMessage",
    "ClientStream",
    "Cursor",
    "ErrorCode",
    "EventWriter",
    "Failure",
    "GenerationRequest",
    "Ledger",
    "LedgerError",
    "LocalProtocolError",
    "OffsetUnit",
    "PartLedger",
    "PartView",
    "PolicySpec",
    "ProtocolError",
    "RemoteProtocolError",
    "RequestError",
    "SSEEvent",
    "SSEParser",
    "ServerEvent",
    "ServerStream",
    "State",
    "View",
    "WetinkError",
]
