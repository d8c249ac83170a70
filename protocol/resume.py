"""Whether and where a reader with a cursor may go on (SPEC sections 6.1, 6.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol import units
from protocol.cursor import Mark
from protocol.errors import ErrorCode, RequestError
from protocol.ledger import Completed, Failed

if TYPE_CHECKING:
    from protocol.cursor import Cursor
    from protocol.events import OffsetUnit
    from protocol.ledger import Ledger


def resumed_at(cursor: Cursor, ledger: Ledger, epoch: int, unit: OffsetUnit) -> int:
    """The code point of part `cursor.part` at which a reader with `cursor`, in `unit`, goes on.

    Raises RequestError: UNKNOWN_EPOCH; CURSOR_AHEAD; BAD_CURSOR for an offset inside a code point;
    for a cursor marked `error` the error that the reader was told.
    """
    if cursor.epoch != epoch:
        raise RequestError(
            ErrorCode.UNKNOWN_EPOCH,
            f"the cursor is from epoch {cursor.epoch}, this is epoch {epoch}",
            "cursor",
        )
    _require_no_error_was_told(cursor, ledger)
    text = _committed_text(cursor, ledger)
    committed = units.length(text, unit)
    if cursor.offset > committed:
        raise RequestError(
            ErrorCode.CURSOR_AHEAD,
            f"part {cursor.part} is committed up to {committed}, the cursor says {cursor.offset}",
            "cursor",
        )
    try:
        at = units.index(text, cursor.offset, unit)
    except ValueError as error:
        raise RequestError(ErrorCode.BAD_CURSOR, str(error), "cursor") from None
    if cursor.mark is Mark.FINISH:
        _require_finish_at(cursor.part, at, ledger)
    return at


def _committed_text(cursor: Cursor, ledger: Ledger) -> str:
    if cursor.part >= len(ledger.parts):
        raise RequestError(
            ErrorCode.CURSOR_AHEAD,
            f"the stream has {len(ledger.parts)} parts, the cursor names part {cursor.part}",
            "cursor",
        )
    return ledger.parts[cursor.part].committed_text()


def _require_no_error_was_told(cursor: Cursor, ledger: Ledger) -> None:
    """Who was told an error is told it again, as a refusal, at which a browser gives up."""
    if cursor.mark is not Mark.ERROR:
        return
    if isinstance(ledger.ending, Failed):
        code = ledger.ending.code
        known = ErrorCode(code) if code in frozenset(ErrorCode) else ErrorCode.ENGINE_FAILED
        raise RequestError(known, ledger.ending.message)
    raise RequestError(
        ErrorCode.POLICY_FAILED,
        "the attachment ended with an error, the stream did not: attach with another policy at "
        f"{cursor._replace(mark=None)}",
        "cursor",
    )


def _require_finish_at(part: int, at: int, ledger: Ledger) -> None:
    end = (ledger.current.index, ledger.current.committed_length)
    if not isinstance(ledger.ending, Completed) or (part, at) != end:
        raise RequestError(
            ErrorCode.CURSOR_AHEAD,
            "the cursor says that the stream finished there, which it did not",
            "cursor",
        )
