"""One stream, one reader, a line between them that can break anywhere, and a witness who trusts
neither side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.policies import SpecPolicy
from protocol import codec, cursor, units
from protocol.edition import Edition
from protocol.events import (
    Commit,
    Error,
    Finish,
    IncludeItem,
    OffsetUnit,
    Open,
    Retract,
    Tentative,
)
from protocol.ledger import Completed, Failed
from protocol.receiver import Change, Receiver
from protocol.requests import Chunk, Hold, PolicySpec, StreamRetract
from protocol.sender import Sender
from protocol.sse import EventWriter, SSEParser
from protocol.transitions import State

if TYPE_CHECKING:
    from protocol.ledger import Ledger


class Delivery:
    """Sender, SSE bytes, parser and receiver; `cut` breaks the line and resumes."""

    def __init__(
        self,
        ledger: Ledger,
        policy: PolicySpec,
        unit: OffsetUnit,
        include: list[IncludeItem],
        edition: Edition | None = None,
    ) -> None:
        """`edition`: one that others read too, for every attachment; None: always a new one."""
        self.ledger = ledger
        self.unit = unit
        self.include = include
        self.receiver = Receiver(unit)
        self.witness = Witness(self.receiver)
        self.finish: Finish | None = None
        self._bytes = bytearray()
        self._edition = edition
        self.attach(policy)

    def attach(self, policy: PolicySpec) -> None:
        """A new attachment, from the reader's cursor on."""
        self.spec = policy
        self.parser = SSEParser()
        self._writer = EventWriter()
        self._bytes.clear()
        self.witness.begin()
        self.sender = Sender(
            edition_of(self.ledger, policy, self.unit, self.include)
            if self._edition is None
            else self._edition
        )
        position = self.receiver.cursor
        first = self.sender.open(None if position is None else cursor.parse(position))
        self._bytes += self._writer.encode(first)

    def pull(self, now: float) -> None:
        """The sender writes all that it owes now."""
        for event in self.sender.advance(now):
            if isinstance(event, Finish):
                self.finish = event
            if isinstance(self.spec, Hold):
                assert not isinstance(event, Tentative | Retract)
            self._bytes += self._writer.encode(event)

    @property
    def under_way(self) -> int:
        """Bytes written and not received."""
        return len(self._bytes)

    def carry(self, n: int) -> None:
        """The next `n` bytes arrive, in one chunk."""
        chunk = bytes(self._bytes[:n])
        del self._bytes[:n]
        for frame in self.parser.feed(chunk):
            event = codec.decode_event_json(frame.data)
            assert event is not None
            assert event == codec.decode_event_msgpack(codec.encode_msgpack(event))
            self.witness.see(event, self.receiver.receive(event))
            self.check_trust()
            self.check_bound()
            self.check_verified()
            if isinstance(event, Commit):
                self.check_cut_short(event)
            if isinstance(event, Error):
                assert frame.id == f"{self.receiver.cursor}.error"
            elif not isinstance(event, Tentative | Retract):
                assert frame.id == self.receiver.cursor

    def cut(self, policy: PolicySpec) -> None:
        """What is under way is lost; the reader comes back, perhaps with another policy, unless it
        has all it wants.
        """
        self.receiver.interrupted()
        if self.receiver.state is State.INTERRUPTED:
            self.attach(policy)

    def check_trust(self) -> None:
        """The reader has found nothing wrong; a stream may still have failed."""
        failure = self.receiver.failure
        assert failure is None or failure.code == "engine_failed", failure

    def check_bound(self) -> None:
        """No more is tentative than `max_tail` allows."""
        match self.spec:
            case StreamRetract(max_tail=int(most), grapheme_safe=False):
                assert units.length(self.receiver.tail, self.unit) <= most
            case _:
                pass

    def check_verified(self) -> None:
        """What the reader takes for verified is committed in the stream."""
        if self.receiver.parts:
            held = self.receiver.parts[-1]
            canonical = self.ledger.parts[held.index].committed_text()
            assert canonical.startswith(held.committed + held.verified_tail)

    def check_cut_short(self, commit: Commit) -> None:
        """Only the very end of a stream that ended early, under a policy that withholds text."""
        if commit.cut_short:
            held, last = self.receiver.parts[-1], self.ledger.current
            assert (held.index, held.committed) == (last.index, last.committed_text())
            match self.ledger.ending:
                case Completed(reason=reason):
                    assert reason not in ("stop", "tool_calls")
                case ending:
                    assert isinstance(ending, Failed)
            assert isinstance(self.spec, Chunk) or self.spec.grapheme_safe

    def check_end(self) -> None:
        """The reader ended with the canonical text, or with the stream's own error."""
        self.check_trust()
        failure = self.receiver.failure
        assert self.receiver.state is (State.FINISHED if failure is None else State.FAILED)
        assert self.receiver.tail == ""
        found = [(part.kind, part.name, part.committed) for part in self.receiver.parts]
        assert found == [
            (part.kind, part.name, part.committed_text()) for part in self.ledger.parts
        ]
        if self.finish is not None:
            assert self.finish.stats == self.witness.stats_of(self.finish, self.unit)


def edition_of(
    ledger: Ledger, policy: PolicySpec, unit: OffsetUnit, include: list[IncludeItem]
) -> Edition:
    return Edition(
        ledger,
        SpecPolicy(policy, unit),
        stream="s1",
        epoch=7,
        model="m",
        unit=unit,
        include=include,
        started_at=0.0,
    )


class Witness:
    """Keeps its own account of what is visible, from what the reader says has changed."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._visible: list[str] = []
        self._committed: list[str] = []
        self.begin()

    def begin(self) -> None:
        """A new attachment: statistics are per attachment."""
        self._erased: list[str] = []
        self._longest_tail = 0

    def see(self, event: object, change: Change | None) -> None:
        parts = self._receiver.parts
        if len(parts) > len(self._visible):
            assert all(part.complete and not part.tail for part in parts[:-1])
            self._visible.append("")
            self._committed.append("")
        change = change or Change()
        before = self._visible[-1]
        # No unexplained rewrite: what vanished is the end of what was visible, and has a cause.
        assert before.endswith(change.erased)
        if change.erased and not isinstance(event, Open):
            assert change.cause
            if not isinstance(event, Error):
                self._erased.append(change.erased)
        kept = before[: len(before) - len(change.erased)]
        self._visible[-1] = kept + change.appended
        assert [part.text for part in parts] == self._visible
        # No commit violation: committed text is append-only, and was all visible.
        self._committed[-1] += change.committed
        assert [part.committed for part in parts] == self._committed
        self._longest_tail = max(
            self._longest_tail, units.length(parts[-1].tail, self._receiver.unit)
        )

    def stats_of(self, finish: Finish, unit: OffsetUnit) -> object:
        """The statistics of this attachment, as this witness counted them."""
        erased = sum(units.length(text, unit) for text in self._erased)
        final = sum(units.length(text, unit) for text in self._committed)
        return msgspec.structs.replace(
            finish.stats,
            erased_units=erased,
            retractions=len(self._erased),
            normalized_erasure=erased / max(1, final),
            longest_tail=self._longest_tail,
            acceptance_rate=0.0,
            tokens_per_step=1.5,
        )
