"""One part as a reader holds it: committed text, then the tail (SPEC section 5.4).

Each rule an event must keep against the text held is checked here, in one method named after it,
and raises RemoteProtocolError before anything has changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol import units
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.text import AppendOnlyText

if TYPE_CHECKING:
    from protocol.events import Commit, OffsetUnit, Retract, Retraction, Tentative


class ReceivedPart:
    """`watermark` and every offset are in `unit`; text is text."""

    def __init__(
        self,
        index: int,
        kind: str,
        name: str | None,
        unit: OffsetUnit,
        *,
        held: str = "",
        watermark: int = 0,
    ) -> None:
        """`held` is committed text up to `watermark`, or "" for a reader that did not keep it."""
        self.index = index
        self.kind = kind
        self.name = name
        self.complete = False
        self.tail = ""
        self.watermark = watermark
        self.verified = watermark
        """The tail before this offset will not be taken back; what follows is drafted."""
        self._unit = unit
        self._tail_length = 0
        self._committed = AppendOnlyText(held)

    @property
    def committed(self) -> str:
        """Committed text, as far as this reader has received it."""
        return str(self._committed)

    @property
    def text(self) -> str:
        """Everything visible: committed text and tail."""
        return self.committed + self.tail

    @property
    def verified_tail(self) -> str:
        """The beginning of the tail, as far as it is verified and only waits for the policy."""
        return self.tail[: units.index(self.tail, self.verified - self.watermark, self._unit)]

    def append(self, event: Tentative) -> None:
        self.require_at(event.at, self.watermark + self._tail_length)
        tail = self.tail + event.text
        if event.verified is not None:
            self._require_verified_within_tail(event.verified, tail)
            self.verified = event.verified
        self._set_tail(tail)

    def retract(self, event: Retract | Retraction) -> str:
        """Returns what vanished."""
        kept = self._kept(event)
        erased = self.tail[len(kept) :]
        self._set_tail(kept)
        return erased

    def commit(self, event: Commit) -> tuple[str, str]:
        """Returns what vanished and what became visible."""
        self.require_at(event.at, self.watermark)
        kept = self.tail if event.retract is None else self._kept(event.retract)
        self._require_committed_text_continues_tail(event.text, kept)
        erased = self.tail[len(kept) :]
        self._committed.append(event.text)
        self.watermark += units.length(event.text, self._unit)
        self.verified = max(self.verified, self.watermark)
        self._set_tail(kept[len(event.text) :])
        return erased, event.text[len(kept) :]

    def drop_tail(self) -> str:
        """Returns what vanished."""
        tail = self.tail
        self.verified = self.watermark
        self._set_tail("")
        return tail

    def require_at(self, at: int, held: int) -> None:
        """`at` is exactly where the text held ends: nothing was lost, nothing comes twice."""
        if at != held:
            raise RemoteProtocolError(
                f"the event applies at {at}, the text held ends at {held}", ErrorCode.GAP
            )

    def require_empty_tail(self) -> None:
        if self.tail:
            raise RemoteProtocolError(f"the tail still holds {self._tail_length} units")

    def _kept(self, event: Retract | Retraction) -> str:
        """The tail that a retraction leaves."""
        self._require_retraction_reaches_end(event)
        self._require_retraction_spares_verified_text(event)
        return self.tail[: self._require_retraction_begins_in_tail(event)]

    def _require_retraction_reaches_end(self, event: Retract | Retraction) -> None:
        self.require_at(event.at + event.n, self.watermark + self._tail_length)

    def _require_retraction_spares_verified_text(self, event: Retract | Retraction) -> None:
        if event.at < self.verified:
            raise RemoteProtocolError(
                f"the retraction at {event.at} takes back text verified up to {self.verified}"
            )

    def _require_verified_within_tail(self, verified: int, tail: str) -> None:
        """`verified` never falls, and names a place in the tail, not inside a code point."""
        if verified < self.verified:
            raise RemoteProtocolError(f"verified fell from {self.verified} to {verified}")
        try:
            units.index(tail, verified - self.watermark, self._unit)
        except ValueError as error:
            raise RemoteProtocolError(f"verified at {verified}: {error}") from None

    def _require_retraction_begins_in_tail(self, event: Retract | Retraction) -> int:
        """Committed text is never taken back, no code point is ever cut."""
        try:
            return units.index(self.tail, event.at - self.watermark, self._unit)
        except ValueError as error:
            raise RemoteProtocolError(f"retraction at {event.at}: {error}") from None

    def _require_committed_text_continues_tail(self, text: str, kept: str) -> None:
        if not (text.startswith(kept) or kept.startswith(text)):
            raise RemoteProtocolError("the committed text rewrites the tail without a retraction")

    def _set_tail(self, tail: str) -> None:
        self.tail = tail
        self._tail_length = units.length(tail, self._unit)
