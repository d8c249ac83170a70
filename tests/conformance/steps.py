"""What can happen to a ledger, as data: in vectors, and in traces that hypothesis makes up."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, assert_never

import msgspec

from protocol.events import Token, Usage

if TYPE_CHECKING:
    from protocol.ledger import Ledger


Given: TypeAlias = tuple[int, int, float | None, float | None]
"""A token: id, n, logprob, confidence."""


class Draft(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="draft"):
    tail: str
    tokens: list[Given] = []
    cause: str | None = None


class Verify(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="verify"):
    text: str
    tail: str
    tokens: list[Given] = []
    cause: str | None = None


class BeginPart(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="begin_part"
):
    kind: str
    name: str | None = None


class Finish(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="finish"):
    reason: str
    usage: Usage
    steps: int


class Fail(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="fail"):
    code: str
    message: str
    retryable: bool
    cause: str = "cancelled"


LedgerStep: TypeAlias = Draft | Verify | BeginPart | Finish | Fail


def tokens_of(step: Draft | Verify) -> list[Token]:
    return [Token(*given) for given in step.tokens]


def apply(step: LedgerStep, ledger: Ledger) -> None:
    match step:
        case Draft():
            ledger.draft(step.tail, tokens_of(step), step.cause)
        case Verify():
            ledger.verify(step.text, step.tail, tokens_of(step), step.cause)
        case BeginPart():
            ledger.begin_part(step.kind, step.name)
        case Finish():
            ledger.finish(step.reason, step.usage, step.steps)
        case Fail():
            ledger.fail(step.code, step.message, step.retryable, step.cause)
        case _:
            assert_never(step)
