"""The cases of tests/vectors/ as structs; the format is described in its README."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from protocol.events import IncludeItem, OffsetUnit
from tests.conformance.steps import LedgerStep

VECTORS = Path(__file__).parent.parent / "vectors"


class _Case(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    spec: str


class ExpectedPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: str
    text: str
    name: str | None = None


class ExpectedText(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    parts: list[ExpectedPart]
    tail: str | None = None
    state: str | None = None
    cursor: str | None = None
    failure: str | None = None
    after: int | None = None
    retryable: bool | None = None
    verified_tail: str | None = None


class ReceiverCase(_Case, frozen=True, kw_only=True):
    offsets: OffsetUnit
    events: list[msgspec.Raw]
    expect: ExpectedText
    resume: str | None = None
    held: str | None = None


class StreamCase(_Case, frozen=True, kw_only=True):
    offsets: OffsetUnit
    attachments: list[str | None]
    every_split: bool
    resume: str | None = None
    expect: ExpectedText


class ExpectedSSEEvent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    event: str
    data: str
    id: str = ""


class ExpectedSSE(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    events: list[ExpectedSSEEvent]
    retry: int | None = None
    last_event_id: str | None = None
    failure: str | None = None


class SSECase(_Case, frozen=True, kw_only=True):
    readable: str
    chunks_hex: list[str]
    every_split: bool
    expect: ExpectedSSE
    max_event_bytes: int | None = None

    @property
    def chunks(self) -> list[bytes]:
        return [bytes.fromhex(chunk) for chunk in self.chunks_hex]


class UnitsCase(_Case, frozen=True, kw_only=True):
    text: str
    lengths: dict[OffsetUnit, int]
    boundaries: dict[OffsetUnit, list[tuple[int, int]]] = {}
    inside: dict[OffsetUnit, list[int]] = {}


class ExpectedCursor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    epoch: int | None = None
    part: int | None = None
    offset: int | None = None
    mark: str | None = None
    failure: str | None = None


class CursorCase(_Case, frozen=True, kw_only=True):
    text: str
    expect: ExpectedCursor


class Open(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="open"):
    cursor: str | None = None
    expect: list[dict[str, Any]] = []
    failure: str | None = None


class Advance(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="advance"
):
    view: tuple[int, int] | str
    now: float
    expect: list[dict[str, Any]]


class SenderCase(_Case, frozen=True, kw_only=True):
    offsets: OffsetUnit
    steps: list[LedgerStep | Open | Advance]
    include: list[IncludeItem] = []


class _File(msgspec.Struct, frozen=True):
    kind: str
    cases: msgspec.Raw


CASE_TYPES: dict[str, type[_Case]] = {
    "receiver": ReceiverCase,
    "stream": StreamCase,
    "sse": SSECase,
    "units": UnitsCase,
    "cursor": CursorCase,
    "sender": SenderCase,
}


def cases_of(kind: str) -> list[Any]:
    """All cases of one kind, in the order of files and cases; types as in `CASE_TYPES`."""
    found: list[Any] = []
    for path in sorted(VECTORS.glob("*.json")):
        file = msgspec.json.decode(path.read_bytes(), type=_File)
        if file.kind == kind:
            found += msgspec.json.decode(file.cases, type=list[CASE_TYPES[kind]])
    return found


def name_of(case: _Case) -> str:
    return case.name
