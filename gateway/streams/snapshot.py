"""A stream as it stands, for those who look instead of listening."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from protocol.cursor import Cursor
from protocol.events import Usage
from protocol.ledger import Completed, Failed

if TYPE_CHECKING:
    from gateway.delivery import Attachment
    from gateway.streams.stream import Stream


class PartSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    part: int
    kind: str
    name: str | None
    committed: str
    tail: str
    complete: bool


class FinishSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    reason: str
    usage: Usage
    digest: str
    """Lower-case hex SHA-256 over the committed text of all parts, in order, as UTF-8."""


class FailureSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    message: str
    retryable: bool


class AttachmentSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One attachment; offsets in its own unit."""

    policy: dict[str, object]
    offsets: str
    cursor: str
    ack: str | None
    """What the reader says it has shown, spoken or accepted, as `part.offset`."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `GET /v1/streams/{id}`. `cursor` counts code points."""

    stream: str
    epoch: int
    model: str
    seed: int | None
    state: Literal["running", "finished", "failed"]
    cursor: str
    parts: list[PartSnapshot]
    finish: FinishSnapshot | None
    failure: FailureSnapshot | None
    attachments: list[AttachmentSnapshot]


def snapshot(stream: Stream) -> Snapshot:
    ledger = stream.ledger
    ending = ledger.ending
    current = ledger.current
    return Snapshot(
        stream=stream.id,
        epoch=stream.epoch,
        model=stream.model,
        seed=stream.seed,
        state=_state(ending),
        cursor=str(Cursor(stream.epoch, current.index, current.committed_length)),
        parts=[
            PartSnapshot(
                part=part.index,
                kind=part.kind,
                name=part.name,
                committed=part.committed_text(),
                tail=part.tail,
                complete=part.complete,
            )
            for part in ledger.parts
        ],
        finish=FinishSnapshot(reason=ending.reason, usage=ending.usage, digest=ledger.digest())
        if isinstance(ending, Completed)
        else None,
        failure=FailureSnapshot(
            code=ending.code, message=ending.message, retryable=ending.retryable
        )
        if isinstance(ending, Failed)
        else None,
        attachments=[_attachment(each) for each in stream.attachments],
    )


def _attachment(attachment: Attachment) -> AttachmentSnapshot:
    ack = attachment.ack
    return AttachmentSnapshot(
        policy=attachment.policy.described,
        offsets=attachment.unit.value,
        cursor=str(attachment.cursor),
        ack=None if ack is None else f"{ack[0]}.{ack[1]}",
    )


def _state(ending: Completed | Failed | None) -> Literal["running", "finished", "failed"]:
    match ending:
        case None:
            return "running"
        case Completed():
            return "finished"
        case Failed():
            return "failed"
