"""Any engine trace, any policy, any unit, any chunking, any cut: the same committed text, nothing
rewritten without a word, nothing committed taken back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from protocol.ledger import Ledger
from tests.conformance import steps
from tests.property.delivery import Delivery, edition_of
from tests.property.traces import includes, offset_units, patient, policies, traces

if TYPE_CHECKING:
    from protocol.events import IncludeItem, OffsetUnit
    from protocol.requests import PolicySpec
    from tests.conformance.steps import LedgerStep

# What happens between two steps of the engine: the server writes, some bytes or all arrive, the
# line breaks.
happenings = st.sampled_from(("pull", "pull", "carry", "carry all", "carry all", "cut"))


@pytest.mark.timeout(600)  # a failure takes up to five minutes to shrink
@settings(patient, max_examples=150)
@given(
    trace=traces(),
    policy=policies,
    unit=offset_units,
    include=includes,
    data=st.data(),
)
def test_reader_ends_with_the_committed_text_whatever_happens(
    trace: list[LedgerStep],
    policy: PolicySpec,
    unit: OffsetUnit,
    include: list[IncludeItem],
    data: st.DataObject,
) -> None:
    ledger = Ledger()
    delivery = Delivery(ledger, policy, unit, include)
    now = 0.0
    for step in trace:
        for happening in data.draw(st.lists(happenings, max_size=5)):
            now += 0.5
            match happening:
                case "pull":
                    delivery.pull(now)
                case "carry":
                    delivery.carry(data.draw(st.integers(0, delivery.under_way)))
                case "carry all":
                    delivery.carry(delivery.under_way)
                case _:
                    delivery.cut(data.draw(policies))
        steps.apply(step, ledger)
    delivery.pull(now)
    while delivery.under_way:
        delivery.carry(data.draw(st.integers(1, delivery.under_way)))
    delivery.check_end()


@settings(patient, max_examples=60)
@given(trace=traces(), policy=policies, unit=offset_units, include=includes, data=st.data())
def test_readers_of_one_edition_end_with_the_same_text_whoever_lags(
    trace: list[LedgerStep],
    policy: PolicySpec,
    unit: OffsetUnit,
    include: list[IncludeItem],
    data: st.DataObject,
) -> None:
    ledger = Ledger()
    edition = edition_of(ledger, policy, unit, include)
    assume(edition.is_shareable)
    readers = [Delivery(ledger, policy, unit, include, edition) for _ in range(3)]
    for now, step in enumerate(trace):
        steps.apply(step, ledger)
        for reader in readers:
            match data.draw(st.sampled_from(("pull", "pull", "lag", "cut"))):
                case "pull":
                    reader.pull(float(now))
                    reader.carry(reader.under_way)
                case "cut":
                    reader.cut(policy)
                case _:
                    pass
    for reader in readers:
        reader.pull(float(len(trace)))
        reader.carry(reader.under_way)
        reader.check_end()


@settings(patient, max_examples=60)
@given(
    trace=traces(),
    readers=st.lists(st.tuples(policies, offset_units), min_size=2, max_size=4),
)
def test_readers_with_different_policies_end_with_the_same_text(
    trace: list[LedgerStep], readers: list[tuple[PolicySpec, OffsetUnit]]
) -> None:
    ledger = Ledger()
    deliveries = [Delivery(ledger, policy, unit, []) for policy, unit in readers]
    for now, step in enumerate(trace):
        steps.apply(step, ledger)
        for delivery in deliveries:
            delivery.pull(float(now))
            delivery.carry(delivery.under_way)
    for delivery in deliveries:
        delivery.check_end()
    texts = [[part.committed for part in delivery.receiver.parts] for delivery in deliveries]
    assert all(text == texts[0] for text in texts)
