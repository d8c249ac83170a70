from __future__ import annotations

import pytest

from gateway.policies.retract import RetractPart
from protocol.events import OffsetUnit
from protocol.ledger import Ledger
from protocol.policy import View


def test_retract_shows_the_whole_tail_without_a_bound() -> None:
    ledger = Ledger()
    ledger.verify("ab")
    ledger.draft("cdef")
    assert RetractPart(None, OffsetUnit.CODEPOINT).view(ledger.current, 0.0) == View(2, 6)


def test_retract_shows_at_most_max_tail_of_what_is_not_committed() -> None:
    ledger, policy = Ledger(), RetractPart(3, OffsetUnit.CODEPOINT)
    ledger.verify("ab")
    ledger.draft("cdef")
    assert policy.view(ledger.current, 0.0) == View(2, 5)
    ledger.verify("c", "def")
    assert policy.view(ledger.current, 0.0) == View(3, 6)


@pytest.mark.parametrize(
    ("unit", "shown"),
    [(OffsetUnit.CODEPOINT, 6), (OffsetUnit.UTF16, 4), (OffsetUnit.UTF8, 3)],
)
def test_retract_counts_max_tail_in_the_readers_unit(unit: OffsetUnit, shown: int) -> None:
    ledger = Ledger()
    ledger.verify("ab")
    ledger.draft("👩👧👦👨x")
    assert RetractPart(4, unit).view(ledger.current, 0.0) == View(2, shown)
