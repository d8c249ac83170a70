"""The canonical text of one stream: committed text and the present tail, part by part (SPEC section
3).

The ledger is state, not a log. Every rule about what may happen to text is checked in one method
named after it and raises `LedgerError` before anything has changed: a violation is our own bug.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from protocol.errors import LedgerError
from protocol.events import Cause, PartKind, Usage
from protocol.marks import Marks
from protocol.text import AppendOnlyText, common_prefix_length

if TYPE_CHECKING:
    from collections.abc import Sequence

    from protocol.events import Token

__all__ = ["Completed", "Ending", "Failed", "Ledger", "LedgerError", "PartLedger"]


HASHED_TOGETHER = 64
"""Commits; to hash each by itself costs more than to append it."""


class Completed(msgspec.Struct, frozen=True):
    """The stream ended as it should; `steps` counts verification steps."""

    reason: str
    usage: Usage
    steps: int = 0


class Failed(msgspec.Struct, frozen=True):
    """The stream ended early; its committed text stands."""

    code: str
    message: str
    retryable: bool


Ending: TypeAlias = Completed | Failed


class PartLedger:
    """One part: committed text, then the tail. Only `Ledger` may call what changes it."""

    __slots__ = (
        "_committed",
        "_marks",
        "cause",
        "committed_length",
        "complete",
        "index",
        "kind",
        "name",
        "tail",
    )

    def __init__(self, index: int, kind: str, name: str | None) -> None:
        self.index = index
        self.kind = kind
        self.name = name
        self.tail = ""
        self.complete = False
        self.cause: str | None = None
        """Cause of the most recent retraction."""
        self.committed_length = 0
        """Code points."""
        self._committed = AppendOnlyText()
        self._marks = Marks()

    @property
    def total_length(self) -> int:
        """Code points of committed text and tail."""
        return self.committed_length + len(self.tail)

    def committed_text(self, start: int = 0, stop: int | None = None) -> str:
        """Committed code points `start` to `stop` (default: the end)."""
        return self._committed.slice(start, self.committed_length if stop is None else stop)

    def text(self, start: int, stop: int | None = None) -> str:
        """Code points `start` to `stop` (default: the end) of committed text and tail."""
        watermark = self.committed_length
        end = watermark + len(self.tail) if stop is None else stop
        if start >= watermark:
            return self.tail[start - watermark : end - watermark]
        if end <= watermark:
            return self._committed.slice(start, end)
        return self._committed.slice(start, watermark) + self.tail[: end - watermark]

    def tokens(self, start: int, stop: int) -> list[tuple[Token, int]]:
        """Tokens whose text ends in (`start`, `stop`], in order, each with the place where it ends:
        its text is the `n` code points before it.
        """
        return self._marks.between(start, stop)

    def tail_confidence(self, start: int, stop: int) -> float | None:
        """Chance that the text from `start` to `stop` stands: the product over the tail's tokens.

        1.0 for committed text; None where the tail came without tokens or confidences.
        """
        if stop <= self.committed_length:
            return 1.0
        return self._marks.confidence(start, stop)

    @property
    def held_bytes(self) -> int:
        """Memory that its text and its tokens take."""
        return self._committed.held_bytes + self._marks.held_bytes

    def forget_tokens(self) -> None:
        self._marks.forget()

    def draft(self, tail: str, tokens: Sequence[Token], cause: str | None) -> None:
        self._require_whole_code_points(tail)
        is_rewrite = not tail.startswith(self.tail)
        if is_rewrite:
            self._require_explained_rewrite(tail, cause)
        committed = self.committed_length
        self._marks.draft(tokens, committed, committed + len(tail))
        if is_rewrite:
            self.cause = cause
        self.tail = tail

    def verify(self, text: str, tail: str, tokens: Sequence[Token], cause: str | None) -> int:
        """Returns the length of `text` in bytes."""
        size = self._require_whole_code_points(text)
        before = self.committed_length
        end = before + len(text)
        same = 0
        if tail or self.tail:
            self._require_whole_code_points(tail)
            canonical = text + tail
            same = common_prefix_length(self.tail, canonical)
            if same < len(self.tail):
                self._require_explained_rewrite(canonical, cause)
        if tokens or self.tail:
            self._marks.commit(tokens, before, end, before + same)
        if same < len(self.tail):
            self.cause = cause
        self.tail = tail
        self._committed.append(text)
        self.committed_length = end
        return size

    def drop_tail(self, cause: str) -> None:
        if self.tail:
            self.cause = cause
        self.tail = ""
        self._marks.drop_tail()

    def close(self) -> None:
        self._require_empty_tail()
        self.complete = True

    def _require_whole_code_points(self, text: str) -> int:
        """Returns the length of `text` in bytes."""
        if text.isascii():
            return len(text)
        try:
            return len(text.encode("utf-8"))
        except UnicodeEncodeError as error:
            raise LedgerError("whole_code_points", f"lone surrogate at {error.start}") from None

    def _require_explained_rewrite(self, canonical: str, cause: str | None) -> None:
        if cause is None:
            raise LedgerError(
                "explained_rewrite", f"tail {self.tail!r} became {canonical!r} without a cause"
            )

    def _require_empty_tail(self) -> None:
        if self.tail:
            raise LedgerError("empty_tail", f"part {self.index} cannot end with {self.tail!r}")


class Ledger:
    """All parts of one stream, and how it ended."""

    def __init__(self) -> None:
        self.parts = [PartLedger(0, PartKind.TEXT, None)]
        self.current = self.parts[0]
        self.ending: Ending | None = None
        self.version = 0
        """Another one after every change."""
        self.committed_bytes = 0
        """UTF-8 length of all committed text, all parts."""
        self._sha256 = hashlib.sha256()
        self._unhashed: list[str] = []
        """The last committed texts, which the digest does not hold yet."""

    def draft(self, tail: str, tokens: Sequence[Token] = (), cause: str | None = None) -> None:
        """The tail is now `tail`, and `tokens` are the tokens it is made of (or none)."""
        self._require_not_ended()
        self.current.draft(tail, tokens, cause)
        self.version += 1

    def verify(
        self,
        text: str,
        tail: str = "",
        tokens: Sequence[Token] = (),
        cause: str | None = None,
    ) -> None:
        """`text` is committed and the tail is now `tail`.

        `tokens` are the tokens `text` is made of (or none). `cause` says why, when the earlier tail
        does not begin `text + tail`.
        """
        self._require_not_ended()
        self.committed_bytes += self.current.verify(text, tail, tokens, cause)
        self._unhashed.append(text)
        if len(self._unhashed) >= HASHED_TOGETHER:
            self._hash()
        self.version += 1

    def begin_part(self, kind: str, name: str | None = None) -> None:
        """The current part is complete and the next one begins."""
        self._require_not_ended()
        self.current.close()
        self.current = PartLedger(len(self.parts), kind, name)
        self.parts.append(self.current)
        self.version += 1

    def finish(self, reason: str, usage: Usage, steps: int = 0) -> None:
        """The stream is complete."""
        self._require_not_ended()
        self.current.close()
        self.ending = Completed(reason, usage, steps)
        self._hash()
        self.version += 1

    def fail(self, code: str, message: str, retryable: bool, cause: str = Cause.CANCELLED) -> None:
        """The stream is given up: committed text stands, the tail is dropped with `cause`."""
        self._require_not_ended()
        self.current.drop_tail(cause)
        self.ending = Failed(code, message, retryable)
        self._hash()
        self.version += 1

    @property
    def held_bytes(self) -> int:
        """Memory that the text and the tokens of all parts take."""
        return sum(part.held_bytes for part in self.parts)

    def forget_tokens(self) -> None:
        """Which token stands where is not known any more; the text stays."""
        for part in self.parts:
            part.forget_tokens()

    def digest(self) -> str:
        """Lower-case hex SHA-256 of the committed text of all parts, in order, as UTF-8."""
        self._hash()
        return self._sha256.hexdigest()

    def _hash(self) -> None:
        self._sha256.update("".join(self._unhashed).encode("utf-8"))
        self._unhashed.clear()

    def _require_not_ended(self) -> None:
        if self.ending is not None:
            raise LedgerError("nothing_after_the_end", f"the stream ended with {self.ending}")
