"""Sender and receiver with a line between them that drops, in any interleaving."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from protocol.events import Usage
from protocol.ledger import Ledger
from tests.property.delivery import Delivery
from tests.property.traces import includes, offset_units, patient, pieces, policies

if TYPE_CHECKING:
    from protocol.events import IncludeItem, OffsetUnit
    from protocol.requests import PolicySpec


class DeliveryMachine(RuleBasedStateMachine):
    @initialize(policy=policies, unit=offset_units, include=includes)
    def begin(self, policy: PolicySpec, unit: OffsetUnit, include: list[IncludeItem]) -> None:
        self.ledger = Ledger()
        self.delivery = Delivery(self.ledger, policy, unit, include)
        self.now = 0.0

    def running(self) -> bool:
        return self.ledger.ending is None

    @precondition(running)
    @rule(more=pieces)
    def engine_drafts(self, more: str) -> None:
        self.ledger.draft(self.ledger.current.tail + more)

    @precondition(running)
    @rule(accepted=st.integers(0, 12), recovered=pieces)
    def engine_verifies(self, accepted: int, recovered: str) -> None:
        self.ledger.verify(self.ledger.current.tail[:accepted] + recovered, cause="draft_rejected")

    @precondition(running)
    @rule(accepted=st.integers(0, 12))
    def engine_verifies_and_holds_back(self, accepted: int) -> None:
        tail = self.ledger.current.tail
        self.ledger.verify(tail[:accepted], tail[accepted:])

    @precondition(running)
    @rule(draft=pieces)
    def engine_restarts(self, draft: str) -> None:
        self.ledger.draft("", cause="engine_restart")
        self.ledger.draft(draft)

    @precondition(running)
    @rule(kind=st.sampled_from(("text", "reasoning", "tool_call")))
    def engine_begins_a_part(self, kind: str) -> None:
        self.ledger.verify(self.ledger.current.tail)
        self.ledger.begin_part(kind)

    @precondition(lambda self: self.running() and len(self.ledger.parts) > 2)
    @rule(failing=st.booleans())
    def engine_ends(self, failing: bool) -> None:
        if failing:
            self.ledger.fail("engine_failed", "gone", True)
        else:
            self.ledger.draft("", cause="cancelled")
            self.ledger.finish("cancelled", Usage(completion_tokens=3, drafted_tokens=4), 2)

    @rule(seconds=st.sampled_from((0.0, 0.001, 1.0)))
    def server_writes(self, seconds: float) -> None:
        self.now += seconds
        self.delivery.pull(self.now)

    @precondition(lambda self: self.delivery.under_way > 0)
    @rule(share=st.floats(0, 1))
    def bytes_arrive(self, share: float) -> None:
        self.delivery.carry(round(self.delivery.under_way * share))

    @rule()
    def reader_catches_up(self) -> None:
        self.delivery.pull(self.now)
        self.delivery.carry(self.delivery.under_way)

    @rule(policy=policies)
    def line_breaks(self, policy: PolicySpec) -> None:
        self.delivery.cut(policy)

    @invariant()
    def reader_holds_nothing_that_is_not_committed(self) -> None:
        parts = self.ledger.parts
        for held, part in zip(self.delivery.receiver.parts, parts, strict=False):
            assert part.committed_text().startswith(held.committed)

    def teardown(self) -> None:
        if self.running():
            self.ledger.verify(self.ledger.current.tail)
            self.ledger.finish("stop", Usage(completion_tokens=3, drafted_tokens=4), 2)
        self.reader_catches_up()
        self.delivery.check_end()


TestDelivery = DeliveryMachine.TestCase
TestDelivery.settings = settings(patient, max_examples=40, stateful_step_count=30)
