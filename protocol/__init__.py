"""The wire protocol of Wetink, sans-I/O. `SPEC.md` is its normative text."""

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
from protocol.policy import Policy, View
from protocol.received import ReceivedPart
from protocol.receiver import Change, Failure, Receiver
from protocol.requests import ClientMessage, GenerationRequest, PolicySpec
from protocol.sender import Sender
from protocol.sse import EventWriter, SSEEvent, SSEParser
from protocol.transitions import State

__all__ = [
    "PROTOCOL_VERSION",
    "Change",
    "ClientMessage",
    "Receiver",
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
    "ReceivedPart",
    "Policy",
    "PolicySpec",
    "ProtocolError",
    "RemoteProtocolError",
    "RequestError",
    "SSEEvent",
    "SSEParser",
    "ServerEvent",
    "Sender",
    "State",
    "View",
    "WetinkError",
]
